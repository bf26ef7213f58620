"""The fingerprint of tables in files, read in parts: that of the same tables in memory (`model.data.fingerprint`)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from model.data.fingerprint import feed, feed_head

# Rows read at once; bits of missing values are packed by eight, so it is a multiple of eight.
_ROWS = 1 << 20


def fingerprint_of_files(events: Path, items: pl.DataFrame, users: Path | pl.DataFrame, category_kind: str) -> str:
    """Returns the sha256 over names, types and values of the tables, as `fingerprint` does.

    Args:
        events: File of the events.
        items: The items.
        users: The users, or their file.
        category_kind: How to read `items.category`.
    """
    digest = hashlib.sha256(category_kind.encode())
    for table in (events, items, users):
        if isinstance(table, pl.DataFrame):
            feed_head(digest, table.width, table.height)
            for column in table.iter_columns():
                feed(digest, column)
        else:
            _feed_file(digest, table)
    return digest.hexdigest()


def _feed_file(digest: hashlib._Hash, path: Path) -> None:
    lazy = pl.scan_parquet(path)
    schema = lazy.collect_schema()
    height = int(lazy.select(pl.len()).collect().item())
    feed_head(digest, len(schema), height)
    for name, dtype in schema.items():
        digest.update(f"{name}:{dtype}|".encode())
        for part in _parts(path, name, height):
            digest.update(np.packbits(part.is_null().to_numpy()).tobytes())
        if dtype != pl.String:
            for part in _parts(path, name, height):
                digest.update(np.ascontiguousarray(part.fill_null(0).to_numpy()).tobytes())
            continue
        for part in _parts(path, name, height):
            digest.update(part.fill_null("").str.len_bytes().cast(pl.Int64).to_numpy().tobytes())
        for part in _parts(path, name, height):
            digest.update(str(part.fill_null("").str.join().item()).encode())


def _parts(path: Path, name: str, height: int) -> Iterator[pl.Series]:
    for start in range(0, height, _ROWS):
        yield pl.scan_parquet(path).select(name).slice(start, _ROWS).collect()[name]
