"""Words that other programs write where a value is missing."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import polars as pl

from model.data.checks import Findings

# Hive and MySQL write \N, pandas nan, None, NaT and <NA>, R NA, spreadsheets #N/A, JavaScript undefined, GA4 (not set).
WORDS = frozenset(
    ["\\N", "nan", "NaN", "NAN", "null", "NULL", "None", "NaT", "<NA>", "N/A", "n/a", "#N/A", "undefined", "(null)"],
) | {"(not set)"}
# Also a brand, a region (North America) or the code of a country, so it counts only where an id, a time or a number is.
_NOT_AVAILABLE = "NA"
_STRICT = frozenset(("user_id", "item_id", "session_id", "timestamp", "value", "price"))


def without_words(
    rows: pl.DataFrame, names: Mapping[str, str], extra: Collection[str], findings: Findings
) -> pl.DataFrame:
    """Empties the fields that hold a word for a missing value, and notes how many there were.

    Args:
        rows: A table whose columns have the names that the data set gives them.
        names: Name in `rows` → name in the file, for the note.
        extra: Words that stand for a missing value in this source.
        findings: Receives a note for each column.

    Returns:
        The table; empty text is null too.
    """
    changed = []
    for column in rows:
        words = WORDS | frozenset(extra) | ({_NOT_AVAILABLE} if column.name in _STRICT else frozenset())
        if isinstance(column.dtype, pl.List) and column.dtype.inner == pl.String:
            changed.append(_without_in_lists(column, words))
        elif column.dtype == pl.String:
            changed.append(_without(column, words, names.get(column.name, column.name), findings))
        elif extra and column.dtype.is_integer():
            changed.append(column.set(column.cast(pl.String).is_in(sorted(extra)).fill_null(value=False), None))
    return rows.with_columns(changed)


def _without(column: pl.Series, words: Collection[str], name: str, findings: Findings) -> pl.Series:
    text = column.str.strip_chars()
    missing = text.is_in(["", *sorted(words)]).fill_null(value=False)
    if not missing.any():
        return column
    counts = text.filter(missing & (text != "")).value_counts(sort=True)
    if counts.height:
        listed = ", ".join(f"{word!r} ({count})" for word, count in counts.head(5).iter_rows())
        findings.note(f"words in column {name!r} that count as missing: {listed}")
    return column.set(missing, None)


def _without_in_lists(column: pl.Series, words: Collection[str]) -> pl.Series:
    element = pl.element()
    keep = pl.col(column.name).list.eval(element.filter(~element.str.strip_chars().is_in(sorted(words))))
    return column.to_frame().select(keep).to_series()
