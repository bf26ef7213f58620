"""Tables beside the log: items and users in CSV, parquet or JSON lines, and attributes in JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import polars as pl

from model.data.checks import ROW, Findings, require_columns
from model.data.dataset import CategoryKind
from model.data.errors import DataError
from model.data.files import read_parquet, read_text
from model.data.raw_dataset import SourceTable, numbered
from model.data.readers.categories import read_categories
from model.data.readers.delimited import read_delimited

_ITEM_COLUMNS: dict[str, tuple[str, ...]] = {
    "title": ("title", "name"),
    "category": ("category_path", "category", "categories", "genres", "genre", "tags"),
    "brand": ("brand",),
    "attributes": ("attributes",),
    "text": ("text", "description"),
    "price": ("price",),
}
_NAME_ITEM_COLUMNS = (
    "call the column of ids item_id, or name the columns with "
    "--map item=…,title=…,category=…,brand=…,attributes=…,text=…,price=…"
)
_NAME_USER_COLUMN = "call the column of ids user_id, or name it with --map user=…"


def read_table(path: Path) -> SourceTable:
    """Reads a table by the ending of its name: .parquet, .jsonl or .ndjson (also .gz), else delimited text."""
    ending = path.name.lower().removesuffix(".gz")
    if ending.endswith((".parquet", ".pq")):
        return SourceTable(numbered(read_parquet(path), first=1), str(path), "row")
    if ending.endswith((".jsonl", ".ndjson")):
        return _read_json_lines(path)
    return read_delimited(path)


def _read_json_lines(path: Path) -> SourceTable:
    rows: list[dict[str, object]] = []
    numbers: list[int] = []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(
                f"a line is not valid JSON: {error.msg}",
                where=f"{path}, line {number}, column {error.colno}",
                fix="write one JSON object on each line",
            ) from error
        if not isinstance(row, dict):
            raise DataError(
                "a line is not a JSON object",
                where=f"{path}, line {number}",
                fix="write one JSON object on each line",
            )
        rows.append(row)
        numbers.append(number)
    try:
        table = pl.DataFrame(rows, infer_schema_length=None, strict=False)
    except (pl.exceptions.PolarsError, TypeError, ValueError) as error:
        raise DataError(
            f"the lines do not form a table: {error}", where=str(path), fix="give a field the same type on every line"
        ) from error
    return SourceTable(table.with_columns(pl.Series(ROW, numbers, pl.Int64)), str(path))


def read_items(path: Path, columns: Mapping[str, str], findings: Findings) -> tuple[SourceTable, CategoryKind]:
    """Reads the item table.

    Categories are lists, or text with `>` between the levels of a path or `|` between tags.

    Args:
        path: The file.
        columns: Role → column name; other roles are looked for under their default names.
        findings: Receives a note on how the categories were read.

    Returns:
        The table, and how to read its categories.

    Raises:
        DataError: The file cannot be read, lacks the ids, or a column holds values that cannot be used.
    """
    table = read_table(path)
    present = [name for name in table.rows.columns if name != ROW]
    wanted = {"item": _key(present, columns, "item", "item_id")}
    for role, known in _ITEM_COLUMNS.items():
        name = columns.get(role) or next((name for name in known if name in present), None)
        if name:
            wanted[role] = name
    require_columns(present, wanted, table.file, ["item"], _NAME_ITEM_COLUMNS)
    rows, names = table.rows, {"item_id" if role == "item" else role: name for role, name in wanted.items()}
    selected = [rows[column].alias(name) for name, column in names.items()]
    kind: CategoryKind = "path"
    items = replace(table, rows=pl.DataFrame([*selected, rows[ROW]]), names=names)
    if "category" in names:
        lists, kind = read_categories(items.rows["category"], items.place("category"), findings)
        items.rows = items.rows.with_columns(lists.alias("category"))
    unused = [name for name in present if name not in wanted.values()]
    if unused:
        findings.note(f"columns of the item table that are not used: {', '.join(unused)}")
    return items, kind


def read_users(path: Path, columns: Mapping[str, str]) -> SourceTable:
    """Reads the user table, in which every column but the id is a feature.

    Args:
        path: The file.
        columns: Role → column name; only the role "user" counts.

    Raises:
        DataError: The file cannot be read or lacks the ids.
    """
    table = read_table(path)
    present = [name for name in table.rows.columns if name != ROW]
    key = _key(present, columns, "user", "user_id")
    require_columns(present, {"user": key}, table.file, ["user"], _NAME_USER_COLUMN)
    features = [name for name in present if name not in (key, "user_id")]
    rows = table.rows.select(ROW, pl.col(key).alias("user_id"), *features)
    return replace(table, rows=rows, names={"user_id": key})


def _key(present: list[str], columns: Mapping[str, str], role: str, default: str) -> str:
    named = columns.get(role, default)
    return named if named in present else default


def read_attributes(path: Path) -> SourceTable:
    """Reads a JSON object, item → list of attribute ids (text or whole numbers).

    Raises:
        DataError: The file cannot be read, or holds anything else.
    """
    try:
        content = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(
            f"the attributes are not valid JSON: {error.msg}",
            where=f"{path}, line {error.lineno}, column {error.colno}",
            fix='write {"item": [attribute, …], …}',
        ) from error
    well_formed = isinstance(content, dict) and all(
        isinstance(values, list) and all(isinstance(v, str | int) for v in values) for values in content.values()
    )
    if not well_formed:
        raise DataError(
            "the attributes are not an object, item → list of ids",
            where=str(path),
            fix='write {"item": [attribute, …], …}',
        )
    rows = pl.DataFrame(
        {"item_id": list(content), "attributes": [[str(v) for v in values] for values in content.values()]},
        schema={"item_id": pl.String, "attributes": pl.List(pl.String)},
    )
    if rows.is_empty():
        raise DataError("the attributes do not name any item", where=str(path), fix="leave --attributes out")
    return SourceTable(rows.with_columns(pl.int_range(1, 1 + pl.len(), dtype=pl.Int64).alias(ROW)), str(path), "entry")
