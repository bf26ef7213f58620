"""The criteria of the quality figures, written down before anything is measured: their limits and their goals. Pure.

A criterion is the name of a row of `results/quality.json`. One that has no row yet is *not measured*. The commands
record their rows with `limit`, so a figure never chooses its own limit; docs/quality.md shows all, missed ones too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loadtests.quality.published import best

MEASURES = ("recall@10", "ndcg@10")
ON_BEFORE = "gained on the commit before, lower end"
ON_BEFORE_LEAST = "gained on the commit before, least of the seeds"
LOST = "lost against the commit before, upper end, share"
ON_ITEM_CF = "gained on item-CF"
ON_REPEAT = "gained on repeat purchase, lower end"
CONDITIONS = "strict complete-journey, conditions"
FOLDS = "strict office, 10 folds"
COLD = "of cold items gained on texts alone, lower end"
WARM = "of warm items lost, share"
# The cost of a list at equal W is that of a decoder run in which every signal has a weight, with what the signals of
# its users add. As in the service, a profile keeps that from one event to the next. Computing it is a cost of the
# event: the first list after it has rows of its own, without a limit.
COST = "strict cost, times the commit before"
# From the history of a user to the list, in processor time of the thread, which others on the machine do not lengthen:
# the 99th percentile over users with full histories at random items and weights of all signals.
RUNG = "strict cost: rung without the network, p99 ms"
RUNG_MS = 1.0
COST_SIZES = (1_700, 12_000, 1_000_000)
# Parts of the ranking that must not lose against the commit before.
KEPT = (
    "strict Beauty",
    "strict ml-1m, 30 minutes",
    "strict movielens-100k, 2.8 minutes",
    "strict LastFM",
    "strict Yelp",
    "strict office",
    "strict complete-journey, 10 minutes",
)
LARGEST_LOSS = 0.01
KIB_OF_STATE = 16.0


@dataclass(frozen=True, slots=True)
class Criterion:
    """One criterion.

    Attributes:
        name: Name of its row.
        group: What it is about, for the table.
        limit: One of `at_least`, `at_most`, `above`, `below`, as `results.row` takes it; empty for a goal alone.
        goal: What is aimed at beyond the limit, in the direction of the limit; None if nothing is.
    """

    name: str
    group: str
    limit: Mapping[str, float]
    goal: float | None = None

    @property
    def sign(self) -> str:
        """The limit's comparison; of a goal alone, at least."""
        signs = {"at_least": "≥", "at_most": "≤", "above": ">", "below": "<"}
        return signs[next(iter(self.limit), "at_least")]

    @property
    def asked(self) -> str:
        """The limit in signs and figures."""
        return f"{self.sign} {next(iter(self.limit.values())):g}" if self.limit else "–"

    def reaches_goal(self, value: float) -> bool | None:
        """Returns whether a figure reaches the goal; None without one."""
        if self.goal is None:
            return None
        return value <= self.goal if self.sign in ("≤", "<") else value >= self.goal


def _each(
    name: str, group: str, limits: Sequence[Mapping[str, float]], goals: Sequence[float | None]
) -> Iterator[Criterion]:
    """Yields a criterion for each measure; `{}` in the name is the measure."""
    for measure, limit, goal in zip(MEASURES, limits, goals, strict=True):
        yield Criterion(name.format(measure), group, limit, goal)


def _both(name: str, group: str, **limit: float) -> Iterator[Criterion]:
    return _each(name, group, (limit, limit), (None, None))


def _at_least(
    name: str, group: str, least: Sequence[float], goals: Sequence[float | None] = (None, None)
) -> Iterator[Criterion]:
    return _each(name, group, [{"at_least": value} for value in least], goals)


def _beauty() -> Iterator[Criterion]:
    group = "Beauty"
    yield from _at_least("strict Beauty: {}", group, (0.102, 0.061), (0.112, 0.068))
    yield from _each(
        "strict Beauty, ties shuffled: {}",
        f"{group}, above every published figure",
        [{"above": value} for value in best("Beauty")],
        (None, None),
    )


def _ml_1m() -> Iterator[Criterion]:
    group = "MovieLens-1M, 30 minutes a seed"
    yield from _both(f"strict ml-1m, 30 minutes: {{}} {ON_BEFORE}", group, above=0)
    yield from _each("strict ml-1m, 30 minutes: {}", group, ({}, {}), (0.345, 0.205))


def _other_data() -> Iterator[Criterion]:
    for part in ("strict office", "office"):
        yield Criterion(f"{part}: ndcg@10 {ON_ITEM_CF}", "Office, tuned item-CF", {"above": 0})
    yield from _both(f"{CONDITIONS}: {{}} {ON_REPEAT}", "Complete Journey", above=0)
    yield Criterion(f"{FOLDS}: recall@10 {COLD}", "Cold items, ten folds of the items", {"above": 0})
    yield from _both(f"{FOLDS}: {{}} {WARM}", "Cold items, ten folds of the items", at_most=LARGEST_LOSS)
    for data in ("LastFM", "Yelp"):
        yield from _both(f"strict {data}: {{}} {ON_ITEM_CF}", f"{data}, tuned item-CF", above=0)
    yield from _at_least("LastFM: {}", "LastFM, sampled split", (0.105, 0.054))
    demo = "strict movielens-100k, 2.8 minutes"
    yield from _both(f"{demo}: {{}} {ON_BEFORE_LEAST}", "MovieLens-100K in the demo's time", above=0)


def _no_loss() -> Iterator[Criterion]:
    for part in KEPT:
        yield from _both(f"{part}: {{}} {LOST}", "No loss against the commit before (Holm)", below=LARGEST_LOSS)


def _cost() -> Iterator[Criterion]:
    group = "Cost at equal W"
    for items in (1_700, 12_000):
        for batch in (1, 32):
            yield Criterion(f"{COST}: {items:,} items, batch {batch}", group, {"at_most": 1.4}, 1.25)
    yield Criterion(f"{COST}: 1,000,000 items, batch 1", group, {"at_most": 2.0})
    for items in COST_SIZES:
        yield Criterion(f"{RUNG}: {items:,} items", "The rung below the model", {"at_most": RUNG_MS})
    yield Criterion("strict cost: largest state of a user, KiB", group, {"at_most": KIB_OF_STATE})
    yield Criterion("strict cost: ONNX runs of a list", group, {"at_most": 1.0})


CRITERIA: tuple[Criterion, ...] = (*_beauty(), *_ml_1m(), *_other_data(), *_no_loss(), *_cost())
# Limits of the sampled split that older pages were measured by.
EARLIER: Mapping[str, Mapping[str, float]] = {
    "Beauty: recall@10": {"at_least": 0.0930},
    "Beauty: ndcg@10": {"at_least": 0.0535},
    "Beauty: recall@10, path alone": {"at_least": 0.065},  # TIGER's recall@10 on Beauty (Rajput et al., 2023)
    "ml-1m, 30 minutes: recall@10": {"at_least": 0.315},
    "ml-1m, 30 minutes: ndcg@10": {"at_least": 0.182},
}
_BY_NAME = {one.name: one for one in CRITERIA}


def limit(name: str) -> Mapping[str, float]:
    """Returns the limit of a row, as keywords of `results.row`; empty where none was written down."""
    found = _BY_NAME.get(name)
    return EARLIER.get(name, {}) if found is None else found.limit


def named(name: str) -> bool:
    """Returns whether a row belongs to a criterion of this module."""
    return name in _BY_NAME


def judged(rows: Sequence[Mapping[str, Any]]) -> list[tuple[Criterion, Mapping[str, Any] | None]]:
    """Returns each criterion with its row, or None where it was not measured."""
    measured = {row["criterion"]: row for row in rows}
    return [(one, measured.get(one.name)) for one in CRITERIA]
