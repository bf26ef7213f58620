"""What the log and the reports say in the end.

What counts was decided beforehand (`loadtests/loop/criteria.py`): the lists of the last cycles, by whether their user
is held out, over everything that does not look made; intervals are clustered by user.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from loadtests.common import results
from loadtests.loop import criteria
from loadtests.loop.whole.cycles import BOT
from loadtests.loop.whole.plan import Progress, ProgressError, turn_of, visits_of
from loadtests.loop.whole.trial import BETTER, EQUAL, EXPERIMENT, FORETOLD
from model.data.dataset import Dataset
from model.online.grouped import GroupSums, Rate
from model.online.log_folder import LogFolder
from model.online.outcomes import by_list, by_position, genuine
from model.online.partitions import LogRange, attributed
from service.experiments.assignment import Assignment
from service.experiments.document import Document, HoldOut

HELD, SERVED = "hold-out", "loop"
_ALL_LAST = "last"
# Of the reports of off-policy evaluation, the estimate that counts.
ESTIMATE = "dr"
_PER = 1000.0


@dataclass(frozen=True, slots=True)
class Lift:
    """A ratio less one, and its 95 % interval; the ends are None where nothing varies."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Found:
    """What came of it all.

    Attributes:
        cycles: For each cycle the clicks per list of both sides with their intervals, what was served, and how the
            cycle ended.
        lift: Clicks per list over those of the hold-out, in the last cycles.
        at_first: The same in the visits of the first cycle, when both had the same model.
        learned: Events of made traffic in the data of the last model.
        made: Clicks of made traffic.
        p: Always-valid p of the better and of the equal arm.
        foretold: For each of these arms the estimate, what was measured, and the interval of the difference.
    """

    cycles: Sequence[Mapping[str, Any]]
    lift: Lift
    at_first: Lift
    learned: int
    made: int
    p: Mapping[str, float]
    foretold: Mapping[str, Mapping[str, Any]]


def found(progress: Progress) -> Found:
    """Reads the log and the reports of a run that is done."""
    plan, log = progress.plan, LogFolder(str(progress.folder / "log"))
    rates = _rates(progress, log)
    cycles = [
        {
            "cycle": number,
            **{side: asdict(rates[f"{number}:{side}"]) for side in (SERVED, HELD)},
            "version": progress.parts[turn_of(number)]["version"],
            "promoted": progress.parts[turn_of(number)]["code"] == 0,
        }
        for number in range(1, plan.cycles + 1)
    ]
    return Found(
        cycles=cycles,
        lift=lift(rates[f"{_ALL_LAST}:{SERVED}"], rates[f"{_ALL_LAST}:{HELD}"]),
        at_first=lift(rates[f"1:{SERVED}"], rates[f"1:{HELD}"]),
        learned=_learned(progress),
        made=sum(progress.parts[visits_of(number)]["made"] for number in range(1, plan.cycles + 1)),
        p=_p(progress.parts[EXPERIMENT]["report"]),
        foretold={
            arm: compared(progress.parts[FORETOLD]["arms"][arm], progress.parts[EXPERIMENT]["measured"][arm])
            for arm in (BETTER, EQUAL)
        },
    )


def lift(ours: Rate, theirs: Rate) -> Lift:
    """Returns by how much one rate is above another of other users; the interval is that of the log of the ratio."""
    ratio = ours.value / theirs.value if theirs.value else math.nan
    halves = [_half(one) for one in (ours, theirs)]
    if not ours.value or any(half is None for half in halves):
        return Lift(ratio - 1.0, None, None)
    width = math.hypot(*((half or 0.0) / one.value for half, one in zip(halves, (ours, theirs), strict=True)))
    return Lift(ratio - 1.0, ratio * math.exp(-width) - 1.0, ratio * math.exp(width) - 1.0)


def compared(ope: Mapping[str, Any], measured: Mapping[str, Any]) -> dict[str, Any]:
    """Compares what was foretold of an arm with what it earned, clicks per thousand lists.

    Args:
        ope: Report of `gpt4rec ope`.
        measured: Value and interval of the arm, from the report of the log.

    Returns:
        `estimate` and `measured` with their intervals; `difference` with `low` and `high`, which have the errors of
        both as if they were independent; whether 0 is between these (`holds`), and whether the interval of the
        estimate has what was measured (`inside`); and `refused`.
    """
    told = ope["estimates"].get(ESTIMATE)
    if told is None or told["low"] is None or measured["low"] is None:
        refused = ope["refused"] or "nothing varies"
        return {"refused": refused, "estimate": None, "measured": dict(measured), "holds": False, "inside": False}
    halves = [(one["high"] - one["low"]) / 2 for one in (told, measured)]
    difference, half = measured["value"] - told["value"], math.hypot(*halves)
    return {
        "refused": None, "estimate": dict(told), "measured": dict(measured), "difference": difference,
        "low": difference - half, "high": difference + half, "holds": abs(difference) <= half,
        "inside": told["low"] <= measured["value"] <= told["high"],
    }  # fmt: skip


def rows(found: Found, command: str) -> list[results.Row]:
    """Returns the rows of the criteria."""
    low = found.lift.low
    differ = sum(not one["holds"] for one in found.foretold.values())
    outside = sum(not one["inside"] for one in found.foretold.values())
    return [
        criteria.row(criteria.WHOLE_LIFT, -100.0 if low is None else 100.0 * low, "%", command),
        criteria.row(criteria.WHOLE_BETTER, found.p[BETTER], "", command),
        criteria.row(criteria.WHOLE_EQUAL, found.p[EQUAL], "", command),
        criteria.row(criteria.WHOLE_FORETOLD, differ, "arms", command),
        criteria.row(criteria.WHOLE_OUTSIDE, outside, "arms", command),
        criteria.row(criteria.WHOLE_MADE, found.learned, "events", command),
    ]


def lines(found: Found) -> list[str]:
    """Returns what was found, for a terminal."""
    said = [
        f"cycle {one['cycle']:2}: {_shown(one[SERVED])} clicks per list, hold-out {_shown(one[HELD])}"
        f"{'' if one['promoted'] else '; the candidate was not taken'}"
        for one in found.cycles
    ]
    said.append(f"over the hold-out, last cycles: {_percent(found.lift)}; first visits: {_percent(found.at_first)}")
    for arm, one in found.foretold.items():
        said.append(f"arm {arm}: always-valid p {found.p[arm]:.4f}; clicks per thousand lists {_told(one)}")
    said.append(f"{found.made:,} clicks of made traffic, {found.learned} of its events learned")
    return said


def _rates(progress: Progress, log: LogFolder) -> dict[str, Rate]:
    """Clicks per list by cycle and side, and of the last cycles together."""
    spans = _spans(progress)
    assignment = Assignment(_document(progress))
    sums = GroupSums(["clicks"])
    for part in attributed(LogRange(log)):
        kept = genuine(part)
        of_owner = {owner: assignment.of(owner).held_out for owner in kept.lists["owner"].unique().to_list()}
        held = pl.col("owner").replace_strict(of_owner, return_dtype=pl.Boolean)
        rows = by_list(kept.lists, by_position(kept.outcomes)).with_columns(
            side=pl.when(held).then(pl.lit(HELD)).otherwise(pl.lit(SERVED))
        )
        for name, from_ms, until_ms in spans:
            inside = rows.filter(pl.col("time_ms").is_between(from_ms, until_ms, closed="left"))
            sums.add(inside.select("owner", "clicks", group=pl.format("{}:{}", pl.lit(name), "side")))
    return {group: rates["clicks"] for group, _, _, rates in sums.rates()}


def _spans(progress: Progress) -> list[tuple[str, int, int]]:
    """Name, begin and end of each cycle, and of the last ones together."""
    cycles = progress.plan.cycles
    spans = [
        (str(number), progress.span(visits_of(number))[0], progress.span(turn_of(number))[1])
        for number in range(1, cycles + 1)
    ]
    first = max(1, cycles - criteria.WHOLE_LAST + 1)
    return [*spans, (_ALL_LAST, spans[first - 1][1], spans[-1][2])]


def _document(progress: Progress) -> Document:
    model = progress.parts["first model"]["version"]
    return Document(holdout=HoldOut(share=criteria.WHOLE_HOLDOUT, model=model))


def _learned(progress: Progress) -> int:
    """Events of made traffic in the data of the newest cycle."""
    newest = max((progress.folder / "cycles" / "cycles").glob("*/data/meta.json"), default=None)
    if newest is None:
        raise ProgressError(f"{progress.folder} has no data of a cycle: give --fresh to begin anew")
    events = Dataset.load(newest.parent).events
    return int(events["user_id"].str.starts_with(BOT).sum())


def _p(report: Mapping[str, Any]) -> dict[str, float]:
    return {arm["name"]: float(arm["comparison"]["p"]) for arm in report["arms"] if arm["comparison"] is not None}


def _half(rate: Rate) -> float | None:
    return None if rate.low is None or rate.high is None else (rate.high - rate.low) / 2.0


def _shown(rate: Mapping[str, Any]) -> str:
    ends = "" if rate["low"] is None else f" ({rate['low']:.3f} … {rate['high']:.3f})"
    return f"{rate['value']:.3f}{ends}"


def _percent(lift: Lift) -> str:
    ends = "" if lift.low is None or lift.high is None else f" ({lift.low:+.1%} … {lift.high:+.1%})"
    return f"{lift.value:+.1%}{ends}"


def _told(one: Mapping[str, Any]) -> str:
    if one["estimate"] is None:
        return f"{one['measured']['value']:.0f}, foretold: {one['refused']}"
    told, where = one["estimate"], "" if one["inside"] else ", measured outside"
    return (
        f"{one['measured']['value']:.0f}, foretold {told['value']:.0f} ({told['low']:.0f} … {told['high']:.0f}{where})"
        f"; difference {one['difference']:+.0f} ({one['low']:+.0f} … {one['high']:+.0f})"
    )
