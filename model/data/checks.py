"""What every check of an import needs: findings and refusals; and the checks of whole rows.

A check either raises `DataError`, which refuses the whole import, or drops rows and counts them in `Findings`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from model.data.errors import DataError, quoted
from model.data.times import Place

# This column carries the line (or row) number of each row, so that messages can name it.
ROW = "#row"


@dataclass
class Findings:
    """What the report of an import says about the data.

    Attributes:
        dropped: Reason → number of dropped rows.
        notes: Sentences for the reader of the report.
        readings: What → how it was read, where all rows together decided that. Parts of one log must agree on them.
        losses: Column → how many values could not be read, and how many there are.
    """

    dropped: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    readings: dict[str, str] = field(default_factory=dict)
    losses: dict[str, tuple[int, int]] = field(default_factory=dict)

    def drop(self, reason: str, count: int) -> None:
        """Counts rows that were dropped for a reason; a count of 0 is not reported."""
        if count:
            self.dropped[reason] = self.dropped.get(reason, 0) + count

    def note(self, text: str) -> None:
        """Adds a note once."""
        if text not in self.notes:
            self.notes.append(text)


NAME_LOG_COLUMNS = "name the columns with --map user=…,item=…,time=…,type=…,value=…,quantity=…,session=…,scene=…"
RENAME_COLUMNS = "rename the columns in the file; --map does not apply to it"


def listed_columns(names: Sequence[str]) -> str:
    """Lists columns for a note; one without a name, such as pandas' index, is called so."""
    return ", ".join(name or "one without a name" for name in names)


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


def refuse(values: pl.Series, wrong: pl.Series, place: Place, what: str, fix: str) -> None:
    """Raises `DataError` with examples if the mask `wrong` [rows] selects a value.

    Args:
        values: [rows] the values, for the examples.
        wrong: [rows] the values to refuse; null is no.
        place: Where they come from.
        what: What is wrong with them, as it goes behind their number.
        fix: How to fix it.
    """
    if wrong.any():
        bad = quoted(values.filter(wrong).unique(maintain_order=True))
        raise DataError(f"{int(wrong.sum())} {what}: {bad}", where=place.locate(wrong), fix=fix)


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
