"""The fingerprint of a data set, by which a training run recognises its data."""

from __future__ import annotations

import hashlib

import numpy as np
import polars as pl


def fingerprint(
    events: pl.DataFrame,
    items: pl.DataFrame,
    users: pl.DataFrame,
    category_kind: str,
    searches: pl.DataFrame | None = None,
) -> str:
    """Returns the sha256 over names, types and values of the tables.

    Equal content has an equal fingerprint, whatever library, in whatever version, wrote the files.

    Args:
        events: The events, in their order.
        items: The items, in their order.
        users: The users, in their order.
        category_kind: How to read `items.category`, "path" or "tags".
        searches: The searches without an item, in their order; None without any.
    """
    digest = hashlib.sha256(category_kind.encode())
    for table in (events, items, users, *([] if searches is None else [searches])):
        feed_head(digest, table.width, table.height)
        for column in table.iter_columns():
            feed(digest, column)
    return digest.hexdigest()


def feed_head(digest: hashlib._Hash, width: int, height: int) -> None:
    """Adds the size of a table."""
    digest.update(f"|{width}x{height}|".encode())


def feed(digest: hashlib._Hash, column: pl.Series) -> None:
    """Adds name, type and values of a column: which are missing, then for text the lengths, then all values."""
    digest.update(f"{column.name}:{column.dtype}|".encode())
    _feed(digest, column)


def _feed(digest: hashlib._Hash, column: pl.Series) -> None:
    digest.update(np.packbits(column.is_null().to_numpy()).tobytes())
    if isinstance(column.dtype, pl.List):
        rows = column.fill_null([]).to_list()
        digest.update(np.fromiter(map(len, rows), np.int64, len(rows)).tobytes())
        _feed(digest, pl.Series("", [value for row in rows for value in row], column.dtype.inner))
    elif column.dtype == pl.String:
        text = column.fill_null("")
        digest.update(text.str.len_bytes().cast(pl.Int64).to_numpy().tobytes())
        digest.update("".join(text.to_list()).encode())
    else:
        digest.update(np.ascontiguousarray(column.fill_null(0).to_numpy()).tobytes())
