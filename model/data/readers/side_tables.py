"""Tables beside the log: items and users in CSV, parquet or JSON, and attributes in JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import polars as pl

from model.data.checks import ROW, Findings, listed_columns, require_columns
from model.data.columns import ITEM_ALIASES, ITEM_ROLES, USER_ALIASES, find_columns, found_by_alias
from model.data.dataset import CategoryKind
from model.data.errors import DataError
from model.data.files import read_text
from model.data.raw_dataset import SourceTable
from model.data.readers.categories import read_categories
from model.data.readers.tables import read_table

_ITEM_COLUMNS = {"item": "item_id", **{role: role for role in ITEM_ROLES}}
_NAME_ITEM_COLUMNS = (
    "call the column of ids item_id, or name the columns with "
    "--items-map item=…,title=…,category=…,brand=…,attributes=…,text=…,price=…,url=…"
)
_NAME_USER_COLUMN = "call the column of ids user_id, or name it with --map user=…"


def read_items(path: Path, columns: Mapping[str, str], findings: Findings) -> tuple[SourceTable, CategoryKind]:
    """Reads the item table.

    Categories are lists, or text with `>` between the levels of a path or `|` between tags.

    Args:
        path: The file.
        columns: Role → column name; other roles are looked for under their default names and aliases.
        findings: Receives a note on how the categories were read.

    Returns:
        The table, and how to read its categories.

    Raises:
        DataError: The file cannot be read, lacks the ids, or a column holds values that cannot be used.
    """
    table = read_table(path)
    present = [name for name in table.rows.columns if name != ROW]
    named = {role: column for role, column in columns.items() if role in _ITEM_COLUMNS}
    if named.get("item") not in present:  # it may be the name of the log's column alone
        named.pop("item", None)
    # A path goes before the column `category`, which then holds its last name.
    defaults = {role: name for role, name in _ITEM_COLUMNS.items() if role != "category"}
    found = find_columns(present, named, defaults, ITEM_ALIASES, table.file)
    if guessed := found_by_alias(found, named, _ITEM_COLUMNS):
        findings.note(f"columns of items found by their names: {guessed}")
    wanted = {"item": "item_id"} | found
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
        findings.note(f"columns of the item table that are not used: {listed_columns(unused)}")
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
    named = {"user": columns["user"]} if columns.get("user") in present else {}
    key = find_columns(present, named, {"user": "user_id"}, USER_ALIASES, table.file).get("user", "user_id")
    require_columns(present, {"user": key}, table.file, ["user"], _NAME_USER_COLUMN)
    features = [name for name in present if name not in (key, "user_id")]
    rows = table.rows.select(ROW, pl.col(key).alias("user_id"), *features)
    return replace(table, rows=rows, names={"user_id": key})


def read_attributes(path: Path) -> SourceTable:
    """Reads a JSON object, item → list of attribute ids (text or whole numbers).

    Raises:
        DataError: The file cannot be read, or holds anything else.
    """
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        what, line, column = getattr(error, "msg", error), getattr(error, "lineno", 1), getattr(error, "colno", 1)
        raise DataError(
            f"the attributes are not valid JSON: {what}",
            where=f"{path}, line {line}, column {column}",
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
