"""The types that columns may have: every table of a reader passes through `plain`, every role through `require`.

A log may come from any program: ids as decimals or bytes, times in 32 bits, columns of nothing. `plain` converts what
can be converted without a loss. What is left (lists, structs, durations, bytes that are no text) is refused by
`require` where a role reads it, and ignored elsewhere.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import polars as pl

from model.data.columns import ITEM_ROLES
from model.data.errors import DataError
from model.data.times import Place

Kind = Literal["text", "number", "bool", "date", "list", "other"]

ID_KINDS: tuple[Kind, ...] = ("text", "number")
NUMBER_KINDS: tuple[Kind, ...] = ("text", "number", "bool")
TEXT_KINDS: tuple[Kind, ...] = ("text", "number", "bool", "date")
LIST_KINDS: tuple[Kind, ...] = (*TEXT_KINDS, "list")

POINT_ZERO = r"^-?\d+\.0+$"
_PER_DAY = {"d": 1, "ms": 86_400_000, "us": 86_400_000_000}
# Days from 1970-01-01 to the first day of the year 1 and to the last of 9999.
_CALENDAR = (-719_162, 2_932_896)
_FIXES = {
    ID_KINDS: "write them as text or as whole numbers",
    NUMBER_KINDS: "write text or numbers",
    TEXT_KINDS: "write text or numbers",
    LIST_KINDS: "write text, numbers or lists of text",
}
# Column of a data set → the flag that names another column for it, or none.
_FLAGS = {
    "user_id": "or name another column: --map user=COLUMN",
    "item_id": "or name another column: --map item=COLUMN",
    "event_type": "or import without it: --map type=",
    "value": "or import without it: --map value=",
    "quantity": "or import without it: --map quantity=",
    "session_id": "or import without it: --map session=",
    "scene": "or import without it: --map scene=",
    "query": "or import without it: --map query=",
    **{name: f"or import without it: --items-map {name}=" for name in ITEM_ROLES},
}


def plain(rows: pl.DataFrame) -> pl.DataFrame:
    """Converts every column to the simplest type that holds all of its values.

    Bytes that are UTF-8, categories and columns of nothing become text. Whole numbers of every width and decimals
    without a fraction become int64, or text where they do not fit. Other decimals become float64. 16-bit and 32-bit
    floats stay as they are, because the checks have to know how many digits such a column can hold.
    """
    changed = [simple for column in rows if (simple := _plain_column(column)).dtype != column.dtype]
    return rows.with_columns(changed) if changed else rows


def _plain_column(column: pl.Series) -> pl.Series:
    dtype = column.dtype
    if isinstance(dtype, pl.BaseExtension):
        return _plain_column(column.ext.storage())
    if dtype == pl.Binary:
        try:
            return column.cast(pl.String)
        except pl.exceptions.ComputeError:
            return column
    if dtype == pl.Null or isinstance(dtype, pl.Categorical | pl.Enum):
        return column.cast(pl.String)
    if dtype.is_decimal():
        text = column.cast(pl.String)
        fraction = text.str.contains(r"\.\d*[1-9]").any()
        return column.cast(pl.Float64) if fraction else _whole(text.str.replace(r"\.0*$", ""))
    return _whole(column) if dtype.is_integer() else column


def _whole(column: pl.Series) -> pl.Series:
    """Int64 where every value fits, else text."""
    narrow = column.cast(pl.Int64, strict=False)
    return narrow if narrow.null_count() == column.null_count() else column.cast(pl.String)


def kind(dtype: pl.DataType) -> Kind:
    """Says what a column of a type can hold: text, numbers, dates or lists."""
    if dtype == pl.String:
        return "text"
    if dtype.is_integer() or dtype.is_float():
        return "number"
    if dtype == pl.Boolean:
        return "bool"
    if dtype == pl.Date or isinstance(dtype, pl.Datetime):
        return "date"
    if isinstance(dtype, pl.List | pl.Array):
        inner = dtype.inner
        return "list" if isinstance(inner, pl.DataType) and (inner == pl.Null or _may_be_text(inner)) else "other"
    return "other"


def _may_be_text(dtype: pl.DataType) -> bool:
    odd = (pl.Binary, pl.Categorical, pl.Enum, pl.Decimal)
    return kind(dtype) in TEXT_KINDS or isinstance(dtype, odd)


def require(column: pl.Series, place: Place, what: str, kinds: Collection[Kind]) -> None:
    """Checks the type of a column that a role reads.

    Args:
        column: [rows] a column of `plain`, under its name in the data set.
        place: Where it comes from.
        what: What it holds, in the plural: "user ids", "values".
        kinds: The kinds that the role can read, one of `ID_KINDS`, `NUMBER_KINDS`, `TEXT_KINDS` and `LIST_KINDS`.

    Raises:
        DataError: The column is of another kind.
    """
    if kind(column.dtype) in kinds:
        return
    bytes_ = " (bytes that are not UTF-8 text)" if column.dtype == pl.Binary else ""
    raise DataError(
        f"{what} of type {column.dtype}{bytes_} cannot be used",
        where=place.whole(column),
        fix=", ".join(filter(None, (_FIXES.get(tuple(kinds), "write text or numbers"), _FLAGS.get(column.name)))),
    )


def as_text(column: pl.Series) -> pl.Series:
    """Writes a column of one of `TEXT_KINDS` as text; whole numbers that were stored as floats lose their `.0`."""
    if column.dtype.is_float():
        numbers = column.fill_nan(None)
        if (numbers == numbers.round(0)).fill_null(value=True).all() and (numbers.abs() < 2**53).fill_null(True).all():
            return numbers.cast(pl.Int64).cast(pl.String)
        return numbers.cast(pl.String)
    if kind(column.dtype) == "date" and not _has_calendar(column):
        return column.to_physical().cast(pl.String)
    return column.cast(pl.String)


def _has_calendar(column: pl.Series) -> bool:
    """Returns whether all dates lie in the years 1 to 9999, as others have no text."""
    unit = column.dtype.time_unit if isinstance(column.dtype, pl.Datetime) else "d"
    if unit == "ns":  # 64 bits of them end in the year 2262
        return True
    days = column.to_physical().cast(pl.Int64) // _PER_DAY[unit]
    return bool(days.is_between(*_CALENDAR).fill_null(value=True).all())


def whole_again(text: pl.Series) -> pl.Series | None:
    """Takes the `.0` off whole numbers that another program wrote as floats.

    Returns:
        [rows] the text without it, if every value is a whole number and one has a `.0`; else None.
    """
    if not text.str.contains(POINT_ZERO).any() or not text.str.contains(r"^-?\d+(\.0+)?$").fill_null(value=True).all():
        return None
    return text.str.replace(r"\.0+$", "")


def as_text_lists(column: pl.Series, place: Place, what: str) -> pl.Series:
    """Writes a column of lists as lists of text, without nulls inside.

    Raises:
        DataError: A list holds bytes that are not UTF-8 text.
    """
    lists = column if isinstance(column.dtype, pl.List) else column.arr.to_list()
    words = plain(pl.DataFrame({column.name: lists.explode()}))[column.name]
    require(words, place, f"{what} inside of lists", TEXT_KINDS)
    if words.dtype.is_float() and as_text(words).str.contains(".", literal=True).sum() == 0:
        lists = lists.cast(pl.List(pl.Int64), strict=False)
    return lists.cast(pl.List(pl.String)).list.drop_nulls()
