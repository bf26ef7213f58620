"""Checks the tables of a reader: ids, event types, values, duplicates.

A check either raises `DataError`, which refuses the whole import, or drops rows and counts them in `Findings`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from model.data.errors import DataError, quoted
from model.data.times import Place
from service.artifact.features import EVENT_TYPES, SIGNAL_TYPES

MAX_ID_LENGTH = 128
# This column carries the line (or row) number of each row, so that messages can name it.
ROW = "#row"
_MISSING_IDS = ["", "nan", "NaN", "null", "NULL", "None"]
_KNOWN_TYPES = frozenset(EVENT_TYPES) | SIGNAL_TYPES | {"search"}


@dataclass
class Findings:
    """What the report of an import says about the data.

    Attributes:
        dropped: Reason → number of dropped rows.
        notes: Sentences for the reader of the report.
    """

    dropped: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def drop(self, reason: str, count: int) -> None:
        """Counts rows that were dropped for a reason; a count of 0 is not reported."""
        if count:
            self.dropped[reason] = self.dropped.get(reason, 0) + count

    def note(self, text: str) -> None:
        """Adds a note once."""
        if text not in self.notes:
            self.notes.append(text)


NAME_LOG_COLUMNS = "name the columns with --map user=…,item=…,time=…,type=…,value=…,session=…,scene=…"
RENAME_COLUMNS = "rename the columns in the file; --map does not apply to it"


def require_columns(
    present: Sequence[str],
    wanted: Mapping[str, str],
    file: str,
    needed: Sequence[str],
    fix: str = NAME_LOG_COLUMNS,
) -> None:
    """Checks that a table has its columns.

    Args:
        present: Names of the columns in the file.
        wanted: Role → column name, such as user → user_id. Every column in it has to be present.
        file: Name of the file, for the message.
        needed: Roles that have to be in `wanted`.
        fix: How to supply a column that is absent.

    Raises:
        DataError: A column is absent.
    """
    absent = {role: column for role, column in wanted.items() if column not in present}
    lacking = [role for role in needed if role not in wanted or role in absent]
    named = [role for role in absent if role not in lacking]
    if not lacking and not named:
        return
    missing = ", ".join(f"{role} (looked for {wanted.get(role, role)!r})" for role in [*lacking, *named])
    raise DataError(
        f"columns are missing: {missing}",
        where=f"{file}; columns found: {', '.join(present) or 'none'}",
        fix=fix,
    )


def as_ids(column: pl.Series, place: Place, what: str) -> pl.Series:
    """Converts ids to text.

    Args:
        column: [rows] text, whole numbers, categories, or floats that hold whole numbers.
        place: Where the column comes from.
        what: What the ids name: "user", "item", "session" or "scene".

    Returns:
        [rows] text, null where the id is missing.

    Raises:
        DataError: An id is of another type, or no request to the service could hold it.
    """
    if column.dtype.is_float():
        column = _whole(column.fill_nan(None), place, what)
    elif not (column.dtype == pl.String or column.dtype.is_integer() or column.dtype == pl.Categorical):
        raise DataError(
            f"{what} ids of type {column.dtype} cannot be used",
            where=f"{place.file}, column {column.name}",
            fix="write them as text or as whole numbers",
        )
    ids = column.cast(pl.String)
    ids = ids.set(ids.str.strip_chars(" ").is_in(_MISSING_IDS).fill_null(value=False), None)
    control = ids.str.contains(r"\p{Cc}").fill_null(value=False)
    _refuse(ids, control, place, f"{what} ids hold control characters", "remove them (tabs, line ends, NUL)")
    long = (ids.str.len_chars() > MAX_ID_LENGTH).fill_null(value=False)
    _refuse(ids, long, place, f"{what} ids are longer than {MAX_ID_LENGTH} characters", "shorten or hash them")
    return ids


def _whole(column: pl.Series, place: Place, what: str) -> pl.Series:
    """Converts floats to integers; a column of whole numbers with gaps is often stored as floats."""
    fraction = ((column != column.round(0)) | ~column.is_finite()).fill_null(value=False)
    _refuse(column, fraction, place, f"{what} ids are not whole numbers", "write ids as text or as whole numbers")
    inexact = (column.abs() > 2**53).fill_null(value=False)
    _refuse(column, inexact, place, f"{what} ids were stored as floats and lost digits", "write ids as text")
    return column.cast(pl.Int64)


def _refuse(column: pl.Series, wrong: pl.Series, place: Place, what: str, mend: str) -> None:
    if wrong.any():
        bad = quoted(column.filter(wrong).unique(maintain_order=True))
        raise DataError(f"{int(wrong.sum())} {what}: {bad}", where=place.locate(wrong), fix=mend)


def drop_missing_ids(events: pl.DataFrame, findings: Findings) -> pl.DataFrame:
    """Drops rows without a user or an item, since a history needs both; counts searches without an item apart."""
    no_user, no_item = pl.col("user_id").is_null(), pl.col("item_id").is_null()
    search = no_item & ~no_user & (pl.col("event_type") == "search").fill_null(value=False)
    counts = events.select(user=no_user.sum(), search=search.sum(), item=(no_item & ~no_user & ~search).sum())
    findings.drop("no user id", int(counts["user"][0]))
    findings.drop("no item id", int(counts["item"][0]))
    findings.drop("searches that name no item", int(counts["search"][0]))
    return events.filter(~no_user & ~no_item)


def drop_duplicates(events: pl.DataFrame, findings: Findings) -> pl.DataFrame:
    """Drops rows that equal an earlier one in every column: the same event was logged twice."""
    columns = [name for name in events.columns if name != ROW]
    once = events.unique(subset=columns, keep="first", maintain_order=True)
    findings.drop("exact duplicates", events.height - once.height)
    return once


def event_types(column: pl.Series, default: str, findings: Findings) -> pl.Series:
    """Normalises event types to lower case.

    Args:
        column: [rows] event types.
        default: The type of events without one.
        findings: Receives notes on missing types and on types that no model knows.

    Returns:
        [rows] text without nulls; unknown types are kept.
    """
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
    """Converts a column to floats.

    Args:
        column: [rows] numbers or text.
        what: What the column holds, in the plural, for the note.
        findings: Receives a note on values that were lost.

    Returns:
        [rows] float64, null where the value is not a finite number.
    """
    numbers = column.cast(pl.Float64, strict=False)
    numbers = numbers.set((~numbers.is_finite()).fill_null(value=False), None)
    given = column.is_not_null()
    if column.dtype == pl.String:
        given &= (column.str.strip_chars() != "").fill_null(value=False)
    lost = int((given & numbers.is_null()).sum())
    if lost:
        findings.note(f"{lost} {what} are not finite numbers and were left empty")
    return numbers
