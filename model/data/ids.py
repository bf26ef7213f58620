"""Reads the ids of users, items, sessions and scenes. Two ids never become one without a word."""

from __future__ import annotations

import polars as pl

from model.data.checks import Findings, refuse
from model.data.column_types import ID_KINDS, POINT_ZERO, require, whole_again
from model.data.times import Place

MAX_ID_LENGTH = 128
# From these numbers on, a float stands for several whole numbers.
_EXACT: dict[type[pl.DataType], int] = {pl.Float16: 2**11, pl.Float32: 2**24, pl.Float64: 2**53}
# Spreadsheets and pandas write large numbers like this. The sign keeps out ids in hexadecimal, such as 12e45.
_SCIENTIFIC = r"^-?\d(\.\d+)?[eE]\+\d+$"
_LOST_DIGITS = "ids were stored as floats and lost digits"
# How a column of text was read (`Findings.readings`): whole numbers that lost a `.0`, whole numbers, and anything else.
POINTED, WHOLE, TEXT = "whole numbers with .0", "whole numbers", "text"


def as_ids(column: pl.Series, place: Place, what: str, findings: Findings) -> pl.Series:
    """Converts ids to text.

    Args:
        column: [rows] a column of `model.data.column_types.plain`, null where the id is missing.
        place: Where the column comes from.
        what: What the ids name: "user", "item", "session" or "scene".
        findings: Receives a note on ids that were whole numbers with a `.0`.

    Returns:
        [rows] text, null where the id is missing.

    Raises:
        DataError: An id is of another type, lost digits, or no request to the service could hold it.
    """
    require(column, place, f"{what} ids", ID_KINDS)
    ids = _from_floats(column, place, what) if column.dtype.is_float() else column.cast(pl.String)
    if column.dtype == pl.String:
        ids = _whole_again(ids, place, what, findings)
    ids = ids.set((ids.str.strip_chars() == "").fill_null(value=False), None)
    control = ids.str.contains(r"\p{Cc}")
    refuse(ids, control, place, f"{what} ids hold control characters", "remove them (tabs, line ends, NUL)")
    long = ids.str.len_chars() > MAX_ID_LENGTH
    refuse(ids, long, place, f"{what} ids are longer than {MAX_ID_LENGTH} characters", "shorten or hash them")
    return ids


def _from_floats(column: pl.Series, place: Place, what: str) -> pl.Series:
    """Makes floats whole; a column of whole numbers with gaps is often stored as floats."""
    exact, column = _EXACT[type(column.dtype)], column.cast(pl.Float64).fill_nan(None)
    fraction = (column != column.round(0)) | ~column.is_finite()
    refuse(column, fraction, place, f"{what} ids are not whole numbers", "write ids as text or as whole numbers")
    refuse(column, column.abs() >= exact, place, f"{what} {_LOST_DIGITS}", "write ids as text")
    return column.cast(pl.Int64).cast(pl.String)


def _whole_again(ids: pl.Series, place: Place, what: str, findings: Findings) -> pl.Series:
    """Takes the `.0` off whole numbers that were written as floats, if every id of the column is a whole number."""
    refuse(ids, ids.str.contains(_SCIENTIFIC), place, f"{what} {_LOST_DIGITS}", "write ids as text")
    pointed = ids.str.contains(POINT_ZERO).fill_null(value=False)
    bare = whole_again(ids)
    bare_numbers = bare is None and ids.str.contains(r"^-?\d+$").fill_null(value=True).all()
    findings.readings[f"{what} ids"] = POINTED if bare is not None else WHOLE if bare_numbers else TEXT
    if bare is None:
        twins = int(ids.filter(pointed).str.replace(r"\.0+$", "").unique().is_in(ids.implode()).sum())
        if twins:
            findings.note(f"{twins} {what} ids are there with and without '.0'; they are kept as different ids")
        return ids
    inexact = pointed & (bare.cast(pl.Float64).abs() >= _EXACT[pl.Float64])
    refuse(ids, inexact, place, f"{what} {_LOST_DIGITS}", "write ids as text")
    findings.note(f"{int(pointed.sum())} {what} ids end in '.0'; they are read as whole numbers, 10.0 as 10")
    return bare
