"""Completes the tables beside the log: one row for every item and user, with checked columns."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from model.data.checks import ROW, Findings
from model.data.column_types import LIST_KINDS, TEXT_KINDS, as_text, as_text_lists, kind, require, whole_again
from model.data.dataset import ITEM_SCHEMA
from model.data.ids import as_ids
from model.data.plausibility import refuse_strangers
from model.data.quantities import as_numbers
from model.data.raw_dataset import RawDataset, SourceTable, split_tags
from model.data.rules import Rules
from model.data.shop_fields import SHOP_SCHEMA, shop_column

# User features and scenes are small sets of groups. A column with more values (a zip code) identifies people instead.
MAX_FEATURE_VALUES = 100
_TEXTS = ("title", "brand", "text")


def complete_items(raw: RawDataset, logged: pl.DataFrame) -> pl.DataFrame:
    """Returns the items of the table, then those that only the log names.

    Args:
        raw: The source, with or without a table of items.
        logged: The items of the checked log in order of first appearance: `item_id`, and `events`, how many it has.

    Returns:
        [items] the columns of `ITEM_SCHEMA`, and those of `SHOP_SCHEMA` that the table has.

    Raises:
        DataError: A column cannot be used, or no item of the log is in the table.
    """
    seen = logged["item_id"]
    if raw.items is None:
        return conform(pl.DataFrame({"item_id": seen}), ITEM_SCHEMA)
    checked = checked_items(raw.items, raw.findings, raw.rules)
    table = conform_items(_unique_by(checked, "item_id", "item", raw.findings))
    refuse_strangers(table["item_id"], seen, raw.items.file, "item")
    unknown = seen.filter(~seen.is_in(table["item_id"].implode()))
    if len(unknown):
        affected = logged.filter(pl.col("item_id").is_in(unknown.implode()))["events"].sum()
        raw.findings.note(
            f"{len(unknown)} items of the log ({affected} events) are not in the item table; they have no title"
        )
    idle = table.height + len(unknown) - len(seen)
    if idle:
        raw.findings.note(f"{idle} items of the item table have no event; they are kept in the catalogue")
    return pl.concat([table, conform(pl.DataFrame({"item_id": unknown}), table.schema)])


def checked_items(table: SourceTable, findings: Findings, rules: Rules) -> pl.DataFrame:
    """Checks and converts the columns of a table of items.

    Args:
        table: `item_id` and some of the columns of `ITEM_SCHEMA` and `SHOP_SCHEMA`.
        findings: Receives what was noted.
        rules: What the caller says about the values.

    Returns:
        [rows] the same columns in the types of these schemas; the id is null where it is missing.

    Raises:
        DataError: A column cannot be used.
    """
    columns = [as_ids(table.rows["item_id"], table.place("item_id"), "item", findings).alias("item_id")]
    for name in table.rows.columns:
        column, place = table.rows[name], table.place(name)
        if name in _TEXTS:
            require(column, place, "values", TEXT_KINDS)
            columns.append(as_text(column))
        elif name in ("category", "attributes"):
            require(column, place, "values", LIST_KINDS)
            lists = kind(column.dtype) == "list"
            columns.append(as_text_lists(column, place, "values") if lists else split_tags(as_text(column), "|"))
        elif name == "price":
            columns.append(as_numbers(column, "prices", place, findings, rules).alias("price"))
        elif name in SHOP_SCHEMA:
            columns.append(shop_column(name, column, place, findings, rules))
    return pl.DataFrame(columns)


def complete_users(raw: RawDataset, logged: pl.Series) -> pl.DataFrame:
    """Returns the users of the log with the features of the user table.

    Args:
        raw: The source, with or without a table of users.
        logged: The users of the checked log in order of first appearance.

    Returns:
        [users] `user_id`, and a text column for each feature.

    Raises:
        DataError: A column cannot be used, or no user of the log is in the table.
    """
    seen = pl.DataFrame({"user_id": logged})
    if raw.users is None:
        return seen
    names = [name for name in raw.users.rows.columns if name not in ("user_id", ROW)]
    columns = [feature for name in names if (feature := _feature(raw.users, name, raw.findings)) is not None]
    ids = as_ids(raw.users.rows["user_id"], raw.users.place("user_id"), "user", raw.findings)
    table = _unique_by(pl.DataFrame([ids.alias("user_id"), *columns]), "user_id", "user", raw.findings)
    refuse_strangers(table["user_id"], seen["user_id"], raw.users.file, "user")
    raw.findings.drop("users of the user table without any event", table.join(seen, on="user_id", how="anti").height)
    wide = [name for name in table.columns if name != "user_id" and table[name].n_unique() > MAX_FEATURE_VALUES]
    for name in wide:
        values = table[name].n_unique()
        raw.findings.note(f"user column {name!r} has {values} values, too many for a feature; it is left out")
    joined = seen.join(table.drop(wide), on="user_id", how="left", maintain_order="left")
    missing = seen.join(table, on="user_id", how="anti").height
    if missing:
        raw.findings.note(f"{missing} users of the log are not in the user table; their features are unknown")
    return joined


def _feature(table: SourceTable, name: str, findings: Findings) -> pl.Series | None:
    column = table.rows[name]
    if kind(column.dtype) not in TEXT_KINDS:
        findings.note(f"user column {name!r} of type {column.dtype} cannot be a feature; it is left out")
        return None
    text = as_text(column).str.strip_chars()
    text = text.set((text == "").fill_null(value=False), None)
    bare = whole_again(text)
    if bare is not None:
        findings.note(f"values of user column {name!r} end in '.0'; they are read as whole numbers, 10.0 as 10")
    return text if bare is None else bare


def _unique_by(rows: pl.DataFrame, key: str, what: str, findings: Findings) -> pl.DataFrame:
    """Keeps one row for each id; rows without an id and repeats are dropped and counted."""
    known = rows.filter(pl.col(key).is_not_null())
    findings.drop(f"{what} rows without an id", rows.height - known.height)
    once = known.unique(subset=[key], keep="first", maintain_order=True)
    findings.drop(f"repeated {what} rows (the first is kept)", known.height - once.height)
    return once


def conform_items(table: pl.DataFrame) -> pl.DataFrame:
    """Selects the columns of `ITEM_SCHEMA` and, of those of `SHOP_SCHEMA`, the ones that hold something."""
    more = {name: dtype for name, dtype in SHOP_SCHEMA.items() if name in table.columns}
    held = {name: dtype for name, dtype in more.items() if table[name].null_count() < table.height}
    return conform(table, {**ITEM_SCHEMA, **held})


def conform(table: pl.DataFrame, schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """Selects the columns of a schema in its order; absent columns are null, absent lists empty."""
    columns = []
    for name, dtype in schema.items():
        column = pl.col(name) if name in table.columns else pl.lit(None)
        column = column.cast(dtype)
        columns.append((column.fill_null([]) if isinstance(dtype, pl.List) else column).alias(name))
    return table.select(columns) if table.height else pl.DataFrame(schema=schema)
