"""Words that other programs write where a value is missing."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

import polars as pl

from model.data.checks import ROW, Findings
from model.data.column_types import as_text

# Hive and MySQL write \N, pandas nan, None, NaT and <NA>, R NA, spreadsheets #N/A, JavaScript undefined, GA4 (not set).
WORDS = frozenset(
    ["\\N", "nan", "NaN", "NAN", "null", "NULL", "None", "NaT", "<NA>", "N/A", "n/a", "#N/A", "undefined", "(null)"],
) | {"(not set)"}
# Also a brand, a region (North America), a plan ("none"), so these do not count in descriptions.
_PLAIN_WORDS = frozenset(("NA", "none", "NONE", "Null", "nil"))
_NUMBER = re.compile(r"-?\d+(\.\d+)?$")
_STRICT = frozenset(
    (
        "user_id", "item_id", "session_id", "timestamp", "event_type", "value", "quantity", "price", "currency",
        "stock", "valid_from", "valid_until",
    )
)  # fmt: skip


def without_words(
    rows: pl.DataFrame, names: Mapping[str, str], extra: Collection[str], findings: Findings
) -> tuple[pl.DataFrame, set[str]]:
    """Empties the fields that hold a word for a missing value, and notes how many there were.

    Args:
        rows: A table whose columns have the names that the data set gives them.
        names: Name in `rows` → name in the file, for the note.
        extra: Words that stand for a missing value in this source; numbers among them count in columns of numbers too.
        findings: Receives a note for each column.

    Returns:
        The table, in which empty text is null too, and the words that it held.
    """
    changed, held = [], set()
    for column in rows.drop(ROW):
        words = WORDS | frozenset(extra) | (_PLAIN_WORDS if column.name in _STRICT else frozenset())
        if isinstance(column.dtype, pl.List) and column.dtype.inner == pl.String:
            changed.append(_without_in_lists(column, words))
            continue
        found = _words_in(column, words if column.dtype == pl.String else frozenset(extra))
        if found is None:
            continue
        counts = found.filter(found != "").value_counts(sort=True)
        if counts.height:
            listed = ", ".join(f"{word!r} ({count})" for word, count in counts.head(5).iter_rows())
            name = names.get(column.name, column.name)
            findings.note(f"words in column {name!r} that count as missing: {listed}")
            held |= set(counts[counts.columns[0]])
        changed.append(column.set(found.is_not_null(), None))
    return rows.with_columns(changed), held


def _words_in(column: pl.Series, words: Collection[str]) -> pl.Series | None:
    """[rows] the word where a field holds one ("" where it is blank), null elsewhere; None if no field does."""
    if column.dtype == pl.String:
        text = column.str.strip_chars()
        found = text.set(~text.is_in(["", *sorted(words)]), None)
    elif words and (column.dtype.is_integer() or column.dtype.is_float()):
        numbers = [float(word) for word in sorted(words) if _NUMBER.match(word)]
        found = as_text(column).set(~column.cast(pl.Float64).is_in(numbers), None)
    else:
        return None
    return found if found.null_count() < len(found) else None


def _without_in_lists(column: pl.Series, words: Collection[str]) -> pl.Series:
    element = pl.element()
    keep = pl.col(column.name).list.eval(element.filter(~element.str.strip_chars().is_in(sorted(words))))
    return column.to_frame().select(keep).to_series()
