"""The format `shopify`: the CSV exports of orders and products of a Shopify shop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl

from model.data.checks import ROW, Findings
from model.data.dataset import CategoryKind
from model.data.errors import DataError
from model.data.formats import Format
from model.data.raw_dataset import RawDataset, SourceTable, split_tags
from model.data.readers.tables import picked, read_files, read_table, zone_joined
from model.data.sources import SourceFile

_ORDERS = {
    "order": ("name",),
    "user_id": ("email",),
    "timestamp": ("createdat",),
    "cancelled": ("cancelledat",),
    "state": ("financialstatus",),
    "sku": ("lineitemsku",),
    "line": ("lineitemname",),
    "price": ("lineitemprice",),
    "quantity": ("lineitemquantity",),
}
_NEEDED = ("order", "user_id", "timestamp", "line")
# Fields that stand on the first line of an order only.
_OF_THE_ORDER = ("user_id", "timestamp", "cancelled", "state")
_PRODUCTS = {
    "handle": ("handle",),
    "title": ("title",),
    "text": ("bodyhtml",),
    "brand": ("vendor",),
    "category": ("productcategory",),
    "type": ("type",),
    "tags": ("tags",),
    "sku": ("variantsku",),
    "price": ("variantprice",),
}
_OF_THE_PRODUCT = ("title", "text", "brand", "category", "type", "tags")
_MARKUP = r"<[^>]*>"


def read_shopify(files: Sequence[SourceFile]) -> RawDataset:
    """Reads the lines of orders as purchases. The item is the SKU of a line, or its name where it has none.

    Args:
        files: Exports of orders; a file with `product` in its name is an export of products.

    Raises:
        DataError: A file cannot be read or lacks a column, or there are no orders.
    """
    products = [file for file in files if "product" in file.path.name.lower()]
    orders = [file for file in files if file not in products]
    if not orders:
        raise DataError(
            "there is no export of orders", where=str(files[0].path), fix="name it; give products alone with --items"
        )
    raw = _read_orders(orders)
    if products:
        raw.items, raw.category_kind = read_products(products[0].path)
    return raw


def _read_orders(files: Sequence[SourceFile]) -> RawDataset:
    table = picked(read_files(files, Format.CSV), _ORDERS, _NEEDED)
    findings = Findings()
    findings.note("user ids are the e-mail addresses of the orders")
    rows = table.rows.with_columns(
        pl.lit(None, pl.String).alias(name) for name in _ORDERS if name not in table.rows.columns
    )
    whole = rows.with_columns(pl.col(name).first().over("order") for name in _OF_THE_ORDER)
    undone = pl.col("cancelled").is_not_null() | pl.col("state").is_in(["refunded", "voided"])
    kept = whole.filter(~undone.fill_null(value=False))
    findings.drop("lines of orders that were cancelled or refunded", whole.height - kept.height)
    nameless = int(kept["sku"].is_null().sum())
    if nameless:
        findings.note(f"{nameless} lines without a SKU are named by the product's name")
    log = kept.select(
        ROW,
        user_id="user_id",
        item_id=pl.coalesce("sku", "line"),
        timestamp=zone_joined("timestamp"),
        event_type=pl.lit("purchase"),
        value="price",
        quantity="quantity",
        session_id="order",
    )
    named = kept.select(ROW, item_id=pl.coalesce("sku", "line"), title="line")
    items = named.filter(pl.col("item_id").is_not_null()).unique("item_id", keep="last", maintain_order=True)
    return RawDataset(
        name=files[0].path.name.split(".")[0],
        source=f"shopify:{files[0].path.name}",
        log=replace(table, rows=log, names={**table.names, "value": table.name("price")}),
        items=replace(table, rows=items, notes=[]),
        default_type="purchase",
        unit_prices=True,
        findings=findings,
    )


def read_products(path: Path) -> tuple[SourceTable, CategoryKind]:
    """Reads an export of products: a row for each variant that has a SKU, else one for the product's handle.

    Raises:
        DataError: The file cannot be read or lacks a column.
    """
    table = picked(read_table(path, Format.CSV), _PRODUCTS, ["handle", "title"])
    rows = table.rows.with_columns(
        pl.lit(None, pl.String).alias(name) for name in _PRODUCTS if name not in table.rows.columns
    )
    rows = rows.with_columns(pl.col(name).first().over("handle") for name in _OF_THE_PRODUCT)
    # Rows without a variant carry further pictures.
    rows = rows.filter(pl.col("sku").is_not_null() | pl.col("price").is_not_null())
    category = pl.coalesce("category", "type").fill_null("")
    selected = rows.select(
        ROW,
        item_id=pl.coalesce("sku", "handle"),
        title="title",
        text=pl.col("text").str.replace_all(_MARKUP, " ").str.replace_all(r"\s+", " ").str.strip_chars(),
        brand="brand",
        category=category,
        attributes="tags",
        price="price",
    )
    lists = [split_tags(selected["category"], ">"), split_tags(selected["attributes"], ",")]
    return replace(table, rows=selected.with_columns(lists)), "path"
