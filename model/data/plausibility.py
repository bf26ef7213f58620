"""Looks at a log as a whole: returns among the purchases, ids that stand for everybody, tables of other people."""

from __future__ import annotations

import polars as pl

from model.data.checks import Findings
from model.data.errors import DataError, quoted

# One id with this share of all events, and many times the events of others, is a default value, a till or a robot.
DOMINANT_SHARE = 0.25
_TIMES_MEDIAN = 4
_OTHERS = 3


def drop_returns(events: pl.DataFrame, findings: Findings) -> pl.DataFrame:
    """Drops what came back: events with a negative quantity, and purchases with a negative value.

    Args:
        events: `event_type` and `value`, and `quantity` if the log has the number of pieces.
        findings: Receives the number of returns, and a note on negative values of other events.

    Returns:
        The other events, without the column `quantity`.
    """
    negative = (events["value"] < 0).fill_null(value=False)
    returned = negative & (events["event_type"] == "purchase")
    if "quantity" in events.columns:
        returned |= (events["quantity"] < 0).fill_null(value=False)
    findings.drop("returns (a negative quantity, or a purchase of a negative value)", int(returned.sum()))
    other = int((negative & ~returned & (events["event_type"] != "rating")).sum())
    if other:
        findings.note(
            f"{other} events that are no purchases have a negative value; "
            "if they are returns, name the column of pieces with --map quantity=COLUMN"
        )
    return events.filter(~returned).drop("quantity", strict=False)


def note_dominant_ids(events: pl.DataFrame, findings: Findings) -> None:
    """Names an id that has a quarter of the log and far more events than the others."""
    for column, what in (("user_id", "user"), ("item_id", "item")):
        counts = events[column].value_counts(sort=True)
        if counts.height <= _OTHERS:
            continue
        name, count = counts.row(0)
        share = count / events.height
        if share >= DOMINANT_SHARE and count >= _TIMES_MEDIAN * counts["count"][1:].median():  # type: ignore[operator]
            findings.note(
                f"{what} {name!r} has {share:.0%} of the events ({count}); if that is a default value, a till or a "
                f"robot, leave it out with --null {name}"
            )


def refuse_strangers(told: pl.Series, seen: pl.Series, where: str, what: str) -> None:
    """Checks that a side table and the log share an id.

    Args:
        told: Ids of the table.
        seen: Ids of the log.
        where: File of the table.
        what: What the ids name: "user" or "item".

    Raises:
        DataError: No id is in both.
    """
    if told.is_empty() or seen.is_in(told.implode()).any():
        return
    raise DataError(
        f"no {what} of the log is in the {what} table: the log has {quoted(seen)}, the table {quoted(told)}",
        where=where,
        fix=f"write the ids in the same way in both, or name their column with --map {what}=COLUMN",
    )
