"""Reads times that are written in a format which the caller named."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import polars as pl

from model.data.errors import DataError, quoted
from model.data.missing import WORDS
from model.data.raw_dataset import SourceTable


def read_dates(table: SourceTable, date_format: str, null_words: Collection[str] = ()) -> SourceTable:
    """Converts the times of a log.

    Args:
        table: The log.
        date_format: How its times are written, in the notation of strptime.
        null_words: Words that stand for a missing time, besides the usual ones.

    Returns:
        The log with datetimes; one without times is returned as it is.

    Raises:
        DataError: A time is written in another way, or the times are no text.
    """
    if "timestamp" not in table.rows.columns:
        return table
    column = table.rows["timestamp"]
    if column.dtype != pl.String:
        raise DataError(
            f"--date-format reads text, but the time column has type {column.dtype}",
            where=table.place("timestamp").whole(column),
            fix="leave --date-format out",
        )
    text = column.str.strip_chars()
    text = text.set(text.is_in(["", "NA", *WORDS, *null_words]).fill_null(value=False), None)
    try:
        dates = text.str.to_datetime(date_format, time_unit="ms", strict=False)
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"the date format cannot be used: {str(error).splitlines()[0]}",
            where=f"--date-format {date_format!r}",
            fix="write it as strptime does, such as %d.%m.%Y %H:%M:%S",
        ) from error
    wrong = dates.is_null() & text.is_not_null()
    if wrong.any():
        raise DataError(
            f"{int(wrong.sum())} times are not written as {date_format!r}: "
            f"{quoted(text.filter(wrong).unique(maintain_order=True))}",
            where=table.place("timestamp").locate(wrong),
            fix="give the format of these times with --date-format, such as %d.%m.%Y %H:%M:%S",
        )
    return replace(table, rows=table.rows.with_columns(dates.alias("timestamp")))
