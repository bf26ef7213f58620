"""The format `retailrocket`: events.csv of RetailRocket, with item_properties_part*.csv and category_tree.csv."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from model.data.checks import ROW
from model.data.errors import DataError
from model.data.raw_dataset import RawDataset, SourceTable, numbered
from model.data.readers.tables import beside, log_file, picked, read_table

_EVENTS = {
    "timestamp": ("timestamp",),
    "user_id": ("visitorid",),
    "event_type": ("event",),
    "item_id": ("itemid",),
}
_TYPES = {"view": "view", "addtocart": "cart", "transaction": "purchase"}
_TREE = {"category": ("categoryid",), "parent": ("parentid",)}
_MOST_LEVELS = 20


def read_retailrocket(source: Path) -> RawDataset:
    """Reads the events, and the items and categories that lie in the same folder.

    The category of an item is its newest one, with the categories above it in front.

    Args:
        source: The folder, or the file of events.

    Raises:
        DataError: A file cannot be read or lacks a column.
    """
    events = log_file(source, "events.csv")
    log = picked(read_table(events), _EVENTS, list(_EVENTS))
    raw = RawDataset(events.absolute().parent.name, f"retailrocket:{events.name}", log, types=_TYPES)
    properties = sorted(source.glob("item_properties*.csv*")) if source.is_dir() else []
    if properties:
        tree = beside(source, "category_tree.csv")
        parents = _parents(tree) if tree else {}
        newest = _newest_categories(properties)
        paths = [_path(category, parents) for category in newest["category"]]
        items = numbered(newest.select("item_id", pl.Series("category", paths, pl.List(pl.String))), first=1)
        raw.items, raw.category_kind = SourceTable(items, str(properties[0]), "entry"), "path"
    return raw


def _newest_categories(files: list[Path]) -> pl.DataFrame:
    """Returns `item_id` and `category`; the properties are 20 million rows, of which polars keeps those it needs."""
    try:
        rows = pl.scan_csv(files, infer_schema=False)
        wanted = rows.filter(pl.col("property") == "categoryid").sort(pl.col("timestamp").cast(pl.Int64))
        newest = wanted.group_by("itemid", maintain_order=True).agg(pl.col("value").last())
        return newest.select(item_id="itemid", category="value").collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(
            f"the properties of items cannot be read: {str(error).splitlines()[0]}",
            where=", ".join(map(str, files)),
            fix="download the file again, or move it away to import without categories",
        ) from error


def _parents(file: Path) -> dict[str, str | None]:
    tree = picked(read_table(file), _TREE, list(_TREE)).rows.drop(ROW)
    return dict(tree.select("category", "parent").iter_rows())


def _path(category: str, parents: dict[str, str | None]) -> list[str]:
    path = [category]
    while (parent := parents.get(path[0])) and parent not in path and len(path) < _MOST_LEVELS:
        path.insert(0, parent)
    return path
