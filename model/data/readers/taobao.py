"""The format `taobao`: UserBehavior.csv of Taobao, without a header: user, item, category, behaviour, time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from model.data.checks import ROW
from model.data.formats import Format, TextOptions
from model.data.raw_dataset import RawDataset
from model.data.readers.tables import picked, read_files
from model.data.sources import SourceFile

_COLUMNS = {"user_id": ("1",), "item_id": ("2",), "category": ("3",), "event_type": ("4",), "timestamp": ("5",)}
_TYPES = {"pv": "view", "fav": "click", "cart": "cart", "buy": "purchase"}


def read_taobao(files: Sequence[SourceFile]) -> RawDataset:
    """Reads the log; the category of each item makes the table of items.

    Raises:
        DataError: A file cannot be read or has fewer columns.
    """
    table = read_files(files, Format.CSV, TextOptions(separator=",", header=False))
    rows = picked(table, _COLUMNS, list(_COLUMNS)).rows
    items = rows.select("item_id", pl.concat_list("category"), ROW).unique("item_id", keep="first", maintain_order=True)
    return RawDataset(
        name=files[0].path.name.split(".")[0],
        source=f"taobao:{files[0].path.name}",
        log=replace(table, rows=rows.select(pl.exclude("category"))),
        items=replace(table, rows=items.filter(pl.col("item_id").is_not_null())),
        types=_TYPES,
    )
