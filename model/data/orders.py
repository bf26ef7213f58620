"""Finds time columns that count the events instead of dating them, as 1, 2, 3, … of a user or of the whole log."""

from __future__ import annotations

import polars as pl

# From here on, whole numbers can be an epoch in seconds (March 1973).
_FIRST_EPOCH = 10**8


def as_order(column: pl.Series, users: pl.Series) -> pl.Series | None:
    """Reads a time column as the places of events in an order.

    Args:
        column: [rows] the time column, as `model.data.column_types.plain` gives it.
        users: [rows] user ids, null where missing.

    Returns:
        [rows] int64 places, if they count from 0 or 1 without a gap, for each user or over the whole log, and no user
        has one twice. Otherwise None: the column holds something else.
    """
    numbers = _whole_numbers(column)
    if numbers is None:
        return None
    rows = pl.DataFrame({"user": users, "place": numbers}).drop_nulls("user")
    if rows.is_empty() or rows.is_duplicated().any():
        return None
    if _counts(rows, []) or _counts(rows, ["user"]):
        return numbers
    return None


def _whole_numbers(column: pl.Series) -> pl.Series | None:
    """Int64 places, or None if a value is missing, no whole number, or large enough for an epoch."""
    if column.dtype == pl.String:
        if not column.str.contains(r"^\s*\d{1,8}(\.0*)?\s*$").fill_null(value=False).all():
            return None
        column = column.str.strip_chars().cast(pl.Float64)
    if not (column.dtype.is_integer() or column.dtype.is_float()):
        return None
    if column.dtype.is_float() and not (column == column.round(0)).fill_null(value=False).all():
        return None
    within = (column >= 0) & (column < _FIRST_EPOCH)
    return column.cast(pl.Int64) if within.fill_null(value=False).all() else None


def _counts(rows: pl.DataFrame, by: list[str]) -> bool:
    """Returns whether the places of each group are all of 0 … n or 1 … n."""
    place = pl.col("place")
    full = (place.min() <= 1) & (place.n_unique() == place.max() - place.min() + 1)
    groups = rows.group_by(by).agg(full.alias("full")) if by else rows.select(full.alias("full"))
    return bool(groups["full"].all())
