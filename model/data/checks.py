"""Checks over the tables a reader hands in: ids, event types, values, duplicates.

A check either raises `DataError` (the whole import is refused) or drops rows and counts them in a `Findings`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from model.data.errors import DataError, quoted
from model.data.times import Place
from service.artifact.features import EVENT_TYPES, SIGNAL_TYPES

MAX_ID_LENGTH = 128
# Line (or row) numbers travel with the rows in a column of this name, so that messages can point at them.
ROW = "#row"
_MISSING_IDS = ["", "nan", "NaN", "null", "NULL", "None"]
_KNOWN_TYPES = frozenset(EVENT_TYPES) | SIGNAL_TYPES | {"search"}


@dataclass
class Findings:
    """What was dropped (reason → rows) and what a reader of the report should know."""

    dropped: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def drop(self, reason: str, count: int) -> None:
        if count:
            self.dropped[reason] = self.dropped.get(reason, 0) + count

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def require_columns(found: Sequence[str], wanted: Mapping[str, str], file: str, needed: Sequence[str]) -> None:
    """Raise `DataError` where a column is absent. `wanted` is role → column name (user → user_id); roles in
    `needed` have to be there, and so does every column the caller named himself."""
    absent = {role: column for role, column in wanted.items() if column not in found}
    lacking = [role for role in needed if role not in wanted or role in absent]
    named = [role for role in absent if role not in lacking]
    if not lacking and not named:
        return
    missing = ", ".join(f"{role} (looked for {wanted.get(role, role)!r})" for role in [*lacking, *named])
    raise DataError(
        f"columns are missing: {missing}",
        where=f"{file}; columns found: {', '.join(found) or 'none'}",
        mend="name the columns: --map user=…,item=…,time=…,type=…,value=…,session=…,scene=… (column names)",
    )


def as_ids(column: pl.Series, place: Place, what: str) -> pl.Series:
    """Ids as text, null where missing. Raises `DataError` for ids the service could never be asked about."""
    if column.dtype.is_float():
        column = _whole(column.fill_nan(None), place, what)
    elif not (column.dtype == pl.String or column.dtype.is_integer() or column.dtype == pl.Categorical):
        raise DataError(
            f"{what} ids of type {column.dtype} cannot be used",
            where=f"{place.file}, column {column.name}",
            mend="write them as text or whole numbers",
        )
    ids = column.cast(pl.String)
    ids = ids.set(ids.str.strip_chars(" ").is_in(_MISSING_IDS).fill_null(value=False), None)
    control = ids.str.contains(r"\p{Cc}").fill_null(value=False)
    _refuse(ids, control, place, f"{what} ids hold control characters", "remove them (tabs, line ends, NUL)")
    long = (ids.str.len_chars() > MAX_ID_LENGTH).fill_null(value=False)
    _refuse(ids, long, place, f"{what} ids are longer than {MAX_ID_LENGTH} characters", "shorten or hash them")
    return ids


def _whole(column: pl.Series, place: Place, what: str) -> pl.Series:
    """Whole numbers that were stored as floats (a column with gaps) back as integers."""
    fraction = ((column != column.round(0)) | ~column.is_finite()).fill_null(value=False)
    _refuse(column, fraction, place, f"{what} ids are no whole numbers", "write ids as text or whole numbers")
    inexact = (column.abs() > 2**53).fill_null(value=False)
    _refuse(column, inexact, place, f"{what} ids were stored as floats and lost digits", "write ids as text")
    return column.cast(pl.Int64)


def _refuse(column: pl.Series, wrong: pl.Series, place: Place, what: str, mend: str) -> None:
    if wrong.any():
        bad = quoted(column.filter(wrong).unique(maintain_order=True))
        raise DataError(f"{int(wrong.sum())} {what}: {bad}", where=place.of(wrong), mend=mend)


def drop_missing_ids(events: pl.DataFrame, findings: Findings) -> pl.DataFrame:
    """Rows without a user or an item say nothing about a sequence; a search without an item is a signal."""
    no_user, no_item = pl.col("user_id").is_null(), pl.col("item_id").is_null()
    search = no_item & ~no_user & (pl.col("event_type") == "search").fill_null(value=False)
    counts = events.select(user=no_user.sum(), search=search.sum(), item=(no_item & ~no_user & ~search).sum())
    findings.drop("no user id", int(counts["user"][0]))
    findings.drop("no item id", int(counts["item"][0]))
    findings.drop("searches that name no item", int(counts["search"][0]))
    return events.filter(~no_user & ~no_item)


def drop_duplicates(events: pl.DataFrame, findings: Findings) -> pl.DataFrame:
    """Rows equal to an earlier one in every column are the same event told twice."""
    columns = [name for name in events.columns if name != ROW]
    once = events.unique(subset=columns, keep="first", maintain_order=True)
    findings.drop("exact duplicates", events.height - once.height)
    return once


def event_types(column: pl.Series, default: str, findings: Findings) -> pl.Series:
    """Event types in lower case, blanks as the default; types no model knows are kept and reported."""
    types = column.cast(pl.String).str.strip_chars().str.to_lowercase()
    types = types.set((types == "").fill_null(value=False), None)
    if types.null_count():
        findings.note(f"{types.null_count()} events without a type are taken as {default!r}")
        types = types.fill_null(default)
    unknown = types.filter(~types.is_in(sorted(_KNOWN_TYPES)))
    if len(unknown):
        counts = unknown.value_counts(sort=True)
        listed = ", ".join(f"{name!r} ({count})" for name, count in counts.head(5).iter_rows())
        listed += "" if counts.height <= 5 else ", …"
        findings.note(f"{counts.height} unknown event types, kept and read as 'other': {listed}")
    return types


def as_numbers(column: pl.Series, what: str, findings: Findings) -> pl.Series:
    """A float column, null where the text is no number (counted in a note) or not finite."""
    numbers = column.cast(pl.Float64, strict=False)
    numbers = numbers.set((~numbers.is_finite()).fill_null(value=False), None)
    given = column.is_not_null()
    if column.dtype == pl.String:
        given &= (column.str.strip_chars() != "").fill_null(value=False)
    lost = int((given & numbers.is_null()).sum())
    if lost:
        findings.note(f"{lost} {what} are no finite number and were left empty")
    return numbers
