"""The items format `merchant-feed`: a product feed for Google Merchant Center, as text or XML."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import polars as pl

from model.data.checks import ROW, Findings
from model.data.compression import plain_name
from model.data.dataset import CategoryKind
from model.data.errors import DataError
from model.data.files import read_bytes
from model.data.raw_dataset import SourceTable
from model.data.readers.categories import read_categories
from model.data.readers.tables import picked, read_table

_COLUMNS = {
    "item_id": ("id",),
    "title": ("title",),
    "text": ("description",),
    "brand": ("brand",),
    "category": ("producttype", "googleproductcategory"),
    "price": ("price",),
    "image": ("imagelink",),
    "url": ("link",),
    "valid_until": ("expirationdate",),
    "color": ("color", "colour"),
    "size": ("size",),
    "material": ("material",),
    "pattern": ("pattern",),
    "gender": ("gender",),
    "age_group": ("agegroup",),
}
_ATTRIBUTES = ("color", "size", "material", "pattern", "gender", "age_group")


def read_merchant_feed(path: Path) -> tuple[SourceTable, CategoryKind]:
    """Reads a feed: tab-separated or CSV, JSON, or RSS and Atom in a file that ends in .xml.

    Args:
        path: The file.

    Raises:
        DataError: The file cannot be read or has no column of ids.
    """
    table = _read_xml(path) if plain_name(path).lower().endswith((".xml", ".rss", ".atom")) else read_table(path)
    table = picked(table, _COLUMNS, ["item_id"])
    rows = table.rows
    if "category" in rows.columns:
        findings = Findings()
        lists, _ = read_categories(rows["category"], table.place("category"), findings)
        table.notes.extend(findings.notes)
        rows = rows.with_columns(lists.alias("category"))
    named = [name for name in _ATTRIBUTES if name in rows.columns]
    if named:
        known = pl.concat_list(pl.when(pl.col(n).is_not_null()).then(pl.format(n + " {}", n)) for n in named)
        rows = rows.with_columns(known.list.drop_nulls().alias("attributes")).drop(named)
    return replace(table, rows=rows), "path"


def _read_xml(path: Path) -> SourceTable:
    try:
        root = ET.fromstring(read_bytes(path))  # noqa: S314 - as above
    except ET.ParseError as error:
        raise DataError(
            f"the feed is not valid XML: {error.msg}",
            where=f"{path}, line {error.position[0]}, column {error.position[1] + 1}",
            fix="download the feed again",
        ) from error
    products = [node for node in root.iter() if _local(node) in ("item", "entry")]
    rows = [{_local(field): (field.text or "").strip() or None for field in node} for node in products]
    if not any(rows):
        raise DataError("the feed holds no product", where=str(path), fix="name the feed of products, RSS or Atom")
    table = pl.DataFrame(rows, infer_schema_length=None)
    numbers = pl.int_range(1, table.height + 1, dtype=pl.Int64, eager=True).alias(ROW)
    return SourceTable(table.with_columns(numbers), str(path), "entry")


def _local(node: ET.Element) -> str:
    return node.tag.rpartition("}")[2]
