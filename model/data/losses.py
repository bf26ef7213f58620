"""Values that cannot be read are left empty; a column that would lose more than a few of them stops the import."""

from __future__ import annotations

import polars as pl

from model.data.checks import Findings
from model.data.errors import DataError, quoted
from model.data.rules import Rules
from model.data.times import Place

MOST_LOST = 0.05


def report_losses(
    column: pl.Series, read: pl.Series, place: Place, what: str, why: str, findings: Findings, rules: Rules, fix: str
) -> None:
    """Counts the values that could not be read.

    Args:
        column: [rows] the values of the source, null where missing.
        read: [rows] what was read of them, null where lost.
        place: Where they come from, with the name of the column.
        what: What the column holds, in the plural.
        why: What is wrong with the lost values: "are not finite numbers".
        findings: Receives a note on a small loss, or one that was allowed.
        rules: Names the columns whose loss is allowed.
        fix: How to write such values.

    Raises:
        DataError: More than `MOST_LOST` of the values were lost, and nobody allowed it.
    """
    lost = column.is_not_null() & read.is_null()
    number, given = int(lost.sum()), len(column) - column.null_count()
    name = place.column or column.name
    findings.losses[name] = (number, given)
    if not number:
        return
    examples = quoted(column.filter(lost).unique(maintain_order=True))
    if number > MOST_LOST * given and name not in rules.allow_loss:
        raise DataError(
            f"column {name!r} would lose {number} of its {given} values, which {why}: {examples}",
            where=place.locate(lost),
            fix=f"{fix}, or accept the loss with --allow-loss {name}",
        )
    findings.note(f"{number} {what} {why} and were left empty: {examples}")
