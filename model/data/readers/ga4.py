"""The format `ga4`: events that Google Analytics 4 exports to BigQuery, as JSON lines or parquet.

An event lists its items; each becomes an event of its own here. The items make the table of items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from model.data.checks import ROW, Findings, require_columns
from model.data.column_types import TEXT_KINDS, plain, require
from model.data.errors import DataError
from model.data.raw_dataset import RawDataset, SourceTable
from model.data.readers.tables import kind_of, read_files
from model.data.sources import SourceFile
from model.data.times import Place

_TYPES = {
    "view_item": "view",
    "select_item": "click",
    "select_promotion": "click",
    "add_to_wishlist": "click",
    "add_to_cart": "cart",
    "purchase": "purchase",
    "view_item_list": "impression",
    "view_promotion": "impression",
    "view_search_results": "impression",
    **dict.fromkeys(("begin_checkout", "view_cart", "add_payment_info", "add_shipping_info"), "other"),
    **dict.fromkeys(("remove_from_cart", "refund"), "other"),
}
_NEEDED = {"user": "user_pseudo_id", "type": "event_name", "time": "event_timestamp", "item": "items"}
_LEVELS = ("item_category", "item_category2", "item_category3", "item_category4", "item_category5")
_FIELDS = ("user_pseudo_id", "user_id", "event_name", "event_timestamp")
_ITEM_FIELDS = ("item_id", "item_name", "item_brand", "price", "quantity", *_LEVELS)
_FLAT = "export events with their repeated field `items`; a flattened table goes with --format csv and --type-map"


def read_ga4(files: Sequence[SourceFile]) -> RawDataset:
    """Reads the events of an export.

    The user is `user_id` where the event has one, else `user_pseudo_id`; the value is price times quantity.

    Raises:
        DataError: A file cannot be read, or lacks a field of the export.
    """
    table = read_files(files, kind_of(files[0].path))
    require_columns([name for name in table.rows.columns if name != ROW], _NEEDED, table.file, list(_NEEDED), _FLAT)
    if not isinstance(table.rows["items"].dtype, pl.List) or not isinstance(table.rows["items"].dtype.inner, pl.Struct):
        raise DataError("the field items does not list objects", where=f"{table.file}, column items", fix=_FLAT)
    _check_types(table)
    findings = Findings()
    exploded = table.rows.filter(pl.col("items").list.len() > 0).explode("items")
    findings.drop("events that name no item", int((table.rows["items"].list.len().fill_null(0) == 0).sum()))
    name = files[0].path.name
    return RawDataset(
        name=name.split(".")[0],
        source=f"ga4:{name}" + (f" and {len(files) - 1} more" if len(files) > 1 else ""),
        log=replace(table, rows=_events(exploded)),
        items=_items(exploded, table),
        category_kind="path",
        findings=findings,
        types=_TYPES,
        unit_prices=True,
    )


def _check_types(table: SourceTable) -> None:
    inner = table.rows["items"].explode().struct
    fields = {f"items.{name}": inner.field(name) for name in inner.fields if name in _ITEM_FIELDS}
    fields |= {name: table.rows[name] for name in _FIELDS if name in table.rows.columns}
    for name, values in fields.items():
        require(
            plain(values.to_frame()).to_series(), Place(table.file, table.rows[ROW], column=name), "values", TEXT_KINDS
        )


def _item(rows: pl.DataFrame, field: str) -> pl.Expr:
    """The field of the items of exploded rows, or null if no item has it."""
    dtype = rows["items"].dtype
    known = {inner.name for inner in dtype.fields} if isinstance(dtype, pl.Struct) else set()
    return pl.col("items").struct.field(field) if field in known else pl.lit(None)


def _events(rows: pl.DataFrame) -> pl.DataFrame:
    user = pl.col("user_pseudo_id").cast(pl.String)
    if "user_id" in rows.columns:
        user = pl.coalesce(pl.col("user_id").cast(pl.String), user)
    columns = {
        "user_id": user,
        "item_id": _item(rows, "item_id"),
        "timestamp": pl.col("event_timestamp"),
        "event_type": pl.col("event_name"),
        "value": _item(rows, "price"),
        "quantity": _item(rows, "quantity"),
    }
    if (session := _session(rows)) is not None:
        columns["session_id"] = session
    return rows.select(ROW, **columns)


def _session(rows: pl.DataFrame) -> pl.Expr | None:
    """`ga_session_id` of `event_params`, or None if the export has no such parameters."""
    dtype = rows["event_params"].dtype if "event_params" in rows.columns else None
    inner = dtype.inner if isinstance(dtype, pl.List) else None
    value = next((f.dtype for f in inner.fields if f.name == "value"), None) if isinstance(inner, pl.Struct) else None
    if not isinstance(value, pl.Struct) or "int_value" not in {f.name for f in value.fields}:
        return None
    found = pl.element().filter(pl.element().struct.field("key") == "ga_session_id")
    number = found.struct.field("value").struct.field("int_value")
    return pl.col("event_params").list.eval(number).list.first().cast(pl.String)


def _items(rows: pl.DataFrame, table: SourceTable) -> SourceTable:
    levels = pl.concat_list([_item(rows, level).cast(pl.String) for level in _LEVELS])
    items = rows.select(
        ROW,
        item_id=_item(rows, "item_id"),
        title=_item(rows, "item_name"),
        brand=_item(rows, "item_brand"),
        category=levels.list.eval(pl.element().filter(pl.element().is_not_null() & (pl.element() != ""))),
        price=_item(rows, "price"),
    )
    known = items.filter(pl.col("item_id").is_not_null())
    newest = known.group_by("item_id", maintain_order=True).agg(
        pl.col("category").filter(pl.col("category").list.len() > 0).last(),
        pl.col("title", "brand", "price").drop_nulls().last(),
        pl.col(ROW).last(),
    )
    return replace(table, rows=newest, notes=[])
