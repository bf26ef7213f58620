"""Criteria, published figures, the comparison with the commit before, and rules judged by leaving a data set out. Pure.

Figures in, Markdown out, for `docs/quality.md`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from loadtests.draw.tables import by_command, cell, markdown
from loadtests.quality.criteria import Criterion, judged
from loadtests.quality.protocols import reading
from loadtests.quality.published import PUBLISHED

Results = Mapping[str, Any]
Rows = Sequence[Mapping[str, Any]]
ACCURACY = {"recall@10": "recall@10", "ndcg@10": "NDCG@10"}
NOT_MEASURED = "not measured"


def criteria(rows: Rows, _: Mapping[str, Results | None]) -> str:
    """Draws every criterion that was written down before measuring, met, missed or not measured."""
    found = judged(rows)
    lines = [
        [one.group, one.name, one.asked, cell(one.goal), *_state(one, row), "–" if row is None else row["date"]]
        for one, row in found
    ]
    columns = ["about", "criterion", "asked", "goal", "figure", "met", "goal reached", "measured"]
    return f"{counted(rows)}\n\n{markdown(columns, lines)}"


def counted(rows: Rows) -> str:
    """Says how many limits are met, missed and not measured."""
    limited = [row for one, row in judged(rows) if one.limit]
    met = sum(row is not None and bool(row["holds"]) for row in limited)
    missed = sum(row is not None and not row["holds"] for row in limited)
    return (
        f"{met} of {len(limited)} limits are met, {missed} are missed, {len(limited) - met - missed} are not measured."
    )


def _state(one: Criterion, row: Mapping[str, Any] | None) -> tuple[str, str, str]:
    """Returns the figure, whether the limit is met, and whether the goal is reached."""
    if row is None:
        return "–", NOT_MEASURED if one.limit else "–", "–" if one.goal is None else NOT_MEASURED
    met = "–" if not one.limit else "yes" if row["holds"] else "**missed**"
    goal = one.reaches_goal(row["value"])
    return f"{row['value']:.4f}", met, "–" if goal is None else "yes" if goal else "no"


def published(_: Rows, __: Mapping[str, Results | None]) -> str:
    """Draws the published figures with their sources."""
    lines = [
        [
            data,
            one.system,
            *("–" if v is None else f"{v:.4f}" for v in (one.recall, one.ndcg)),
            one.source,
            one.read,
        ]
        for data, figures in PUBLISHED.items()
        for one in figures
    ]
    return markdown(["data", "system", "recall@10", "NDCG@10", "source", "read"], lines)


def before(found: Results) -> str:
    """Draws, for each part and measure, the value before and now, the paired difference, and the largest loss."""
    lines = [
        [
            f"{one.data}, {one.split}" + "".join(f", {option}" for option in one.options),
            ACCURACY[row["measure"]],
            len(row["seeds"]),
            f"{row['before']:.4f}",
            f"{row['now']:.4f}",
            f"{row['difference']:+.4f} ({row['low']:+.4f} … {row['high']:+.4f})",
            f"{row['least_of_seeds']:+.4f}",
            f"{row['lost_high']:+.2%}",
        ]
        for row in found["rows"]
        for one in (reading(row["part"]),)
    ]
    columns = [
        "data, split",
        "measure",
        "seeds",
        "before",
        "now",
        "gained (95 %)",
        "least of a seed",
        "largest loss",
    ]
    return markdown(columns, lines) + "\n\n" + by_command(found)


def cost(found: Results) -> str:
    """Draws the milliseconds of a decoder run before and now, and those of the host, by size of the catalogue."""
    lists = [
        [
            f"{row['items']:,}",
            row["batch"],
            *(median(row[case]) for case in ("before", "now", "after_an_event")),
            *(f"{row[ratio]:.2f} ×" for ratio in ("ratio", "ratio_after_an_event")),
        ]
        for row in found["rows"]
    ]
    columns = ["items", "lists of a run", "before, ms", "now, ms", "after an event, ms", "now", "after an event"]
    host = [
        [
            f"{one['items']:,}",
            f"{one['speak']:,.0f}",
            *(one[part][p] for part in ("signals", "rung") for p in ("p50", "p99")),
        ]
        for one in found["host"]
    ]
    of_host = ["items", "items with signals", "signals, p50 ms", "p99 ms", "rung, p50 ms", "p99 ms"]
    return "\n\n".join([markdown(columns, lists), markdown(of_host, host), by_command(found)])


def rules(found: Results) -> str:
    """Draws, for each data set, the rule made from the others and what it loses against the best of the grid."""
    lines = [
        [
            row["data"],
            ", ".join(f"{value:.3g} {name}" for name, value in row["figures"].items()),
            row["rule"],
            row["choice"],
            row["best"],
            *(f"{row[loss][part]:.1%}" for loss in ("loss", "loss_shipped") for part in ("valid", "test")),
        ]
        for row in found["rows"]
    ]
    columns = [
        "left out",
        "figures",
        "rule of the others",
        "it chooses",
        "best of the grid",
        "loss, validation",
        "loss, test",
        "defaults' loss, validation",
        "test",
    ]
    said = f"Trainings of at most {found['minutes']:g} minutes. The rule of all data sets together: {found['rule']}."
    return "\n\n".join([said, markdown(columns, lines), by_command(found)])
