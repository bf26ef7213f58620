"""Plain tables: a log in CSV or parquet, items and users in CSV, parquet or JSON lines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import polars as pl

from model.data.assemble import Raw, Table, numbered, split_tags
from model.data.checks import ROW, Findings, require_columns
from model.data.dataset import CategoryKind
from model.data.errors import DataError
from model.data.files import read_parquet, read_text
from model.data.formats import LOG_COLUMNS
from model.data.readers.delimited import read_delimited

_ITEM_COLUMNS: dict[str, tuple[str, ...]] = {
    "title": ("title", "name"),
    "category": ("category", "category_path", "categories", "genres", "genre", "tags"),
    "brand": ("brand",),
    "attributes": ("attributes",),
    "text": ("text", "description"),
    "price": ("price",),
}
_TAG_NAMES = ("genres", "genre", "tags")


def read_table(path: Path) -> Table:
    """A table by the ending of its name: .parquet, .jsonl or .ndjson (also .gz), else delimited text."""
    ending = path.name.lower().removesuffix(".gz")
    if ending.endswith((".parquet", ".pq")):
        return Table(numbered(read_parquet(path), first=1), str(path), "row")
    if ending.endswith((".jsonl", ".ndjson")):
        return _read_json_lines(path)
    return read_delimited(path)


def _read_json_lines(path: Path) -> Table:
    rows: list[dict[str, object]] = []
    numbers: list[int] = []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(
                f"a line is no JSON: {error.msg}",
                where=f"{path}, line {number}, column {error.colno}",
                mend="write one JSON object a line",
            ) from error
        if not isinstance(row, dict):
            raise DataError("a line is no JSON object", where=f"{path}, line {number}", mend="write one object a line")
        rows.append(row)
        numbers.append(number)
    try:
        table = pl.DataFrame(rows, infer_schema_length=None, strict=False)
    except (pl.exceptions.PolarsError, TypeError, ValueError) as error:
        raise DataError(
            f"the lines make no table: {error}", where=str(path), mend="give a field one type in every line"
        ) from error
    return Table(table.with_columns(pl.Series(ROW, numbers, pl.Int64)), str(path))


def read_log(path: Path, columns: Mapping[str, str], *, parquet: bool) -> Raw:
    """A log in one table. `columns` maps roles to column names; unnamed roles are looked for under their own
    names (user_id, item_id, timestamp, event_type, value, session_id, scene). Raises `DataError`."""
    table = Table(numbered(read_parquet(path), first=1), str(path), "row") if parquet else read_delimited(path)
    found = [name for name in table.rows.columns if name != ROW]
    named = {role: column for role, column in columns.items() if role in LOG_COLUMNS}
    optional = {role: name for role, name in LOG_COLUMNS.items() if name in found}
    wanted = {"user": "user_id", "item": "item_id", **optional, **named}
    require_columns(found, wanted, table.file, ["user", "item"])
    rows = table.rows.select([pl.col(c).alias(LOG_COLUMNS[r]) for r, c in wanted.items()] + [pl.col(ROW)])
    findings = Findings()
    unused = [name for name in found if name not in wanted.values()]
    if unused:
        findings.note(f"columns that are not used: {', '.join(unused)}")
    name = path.name.removesuffix(".gz").rsplit(".", 1)[0]
    kind = "parquet" if parquet else "csv"
    return Raw(name, f"{kind}:{path.name}", replace(table, rows=rows), findings=findings)


def read_items(path: Path, columns: Mapping[str, str], findings: Findings) -> tuple[Table, CategoryKind]:
    """The item table and how its categories are to be read.

    Categories may be lists, or text with `>` between the levels of a path or `|` between tags. Raises
    `DataError`.
    """
    table = read_table(path)
    found = [name for name in table.rows.columns if name != ROW]
    wanted = {"item": _key(found, columns, "item", "item_id")}
    for role, names in _ITEM_COLUMNS.items():
        name = columns.get(role) or next((name for name in names if name in found), None)
        if name:
            wanted[role] = name
    require_columns(found, wanted, table.file, ["item"])
    rows = table.rows
    for role, name in wanted.items():
        _refuse_nested(rows[name], table.file, lists=role in ("category", "attributes"))
    made = [rows[wanted["item"]].alias("item_id"), rows[ROW]]
    made += [rows[wanted[role]].alias(role) for role in ("title", "brand", "text", "price") if role in wanted]
    kind: CategoryKind = "path"
    if "category" in wanted:
        column = rows[wanted["category"]].alias("category")
        lists, kind = _categories(column, wanted["category"], findings)
        made.append(lists)
    if "attributes" in wanted:
        column = rows[wanted["attributes"]].alias("attributes")
        made.append(column if isinstance(column.dtype, pl.List) else split_tags(column, "|"))
    return replace(table, rows=pl.DataFrame(made)), kind


def _refuse_nested(column: pl.Series, file: str, *, lists: bool) -> None:
    """Raise `DataError` for objects, and for lists where one value is meant."""
    inner = column.dtype.inner if lists and isinstance(column.dtype, pl.List) else column.dtype
    if inner is not None and inner.is_nested():
        raise DataError(
            f"values of type {column.dtype} cannot be used",
            where=f"{file}, column {column.name}",
            mend="write text, numbers or lists of text" if lists else "write text or numbers",
        )


def _categories(column: pl.Series, name: str, findings: Findings) -> tuple[pl.Series, CategoryKind]:
    tags = name.lower() in _TAG_NAMES
    if isinstance(column.dtype, pl.List):
        separator, lists = "", column.cast(pl.List(pl.String)).list.drop_nulls()
    else:
        text = column.cast(pl.String)
        path = not tags and bool(text.str.contains(">", literal=True).any())
        tags = tags or (not path and bool(text.str.contains("|", literal=True).any()))
        separator = ">" if path else "|"
        lists = split_tags(text, separator)
    what = "tags" if tags else "levels of a path"
    findings.note(f"column {name!r} read as {what}{f' between {separator!r}' if separator else ''}")
    return lists, "tags" if tags else "path"


def read_users(path: Path, columns: Mapping[str, str]) -> Table:
    """The user table: every other column is a feature. Raises `DataError`."""
    table = read_table(path)
    found = [name for name in table.rows.columns if name != ROW]
    key = _key(found, columns, "user", "user_id")
    require_columns(found, {"user": key}, table.file, ["user"])
    _refuse_nested(table.rows[key], table.file, lists=False)
    plain = [name for name in found if not table.rows[name].dtype.is_nested() and name not in (key, "user_id")]
    return replace(table, rows=table.rows.select(ROW, pl.col(key).alias("user_id"), *plain))


def _key(found: list[str], columns: Mapping[str, str], role: str, default: str) -> str:
    named = columns.get(role, default)
    return named if named in found else default
