"""The criteria `limit 1 …` to `limit 8 …`, written down before anything is measured. Pure.

A criterion is the name of a row of `results/engine.json`. The commands record their rows with `row`, so a figure never
chooses its own limit. Each criterion says what is read for it, so that of two readings none is picked afterwards.

All of them are ratios within one run, or counts. Lists of the first four and of the last are made anew: where the
service keeps answers, that is switched off, since an answer that is kept runs no decoder.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from loadtests.common import results

CPU_IN_TURNS = "limit 1 cpu in turns"
CPU_IN_LOOPS = "limit 1 cpu in loops"
BEFORE_CPU = "limit 2 processor time a list / before"
BEFORE_RATE = "limit 2 rps at p99 ≤ 50 ms / before"
BEFORE_PLACES = "limit 2 top-10 places as before"
PEERS_SERVERS = "limit 3 rps / best of LitServe and BentoML"
PEERS_FASTAPI = "limit 3 rps / FastAPI + thread"
PEERS_TORCH = "limit 3 rps / torch eager, batched over the beam"
# The same three where each run keeps as many nodes a level as before exports measured how many it must keep.
WIDE = 64
PEERS_WIDE: Mapping[str, str] = {name: f"{name}, W {WIDE}" for name in (PEERS_SERVERS, PEERS_FASTAPI, PEERS_TORCH)}
PEERS_DECODE_ONLY: Mapping[str, str] = {
    "litserve": "limit 3 rps / LitServe, decode only",
    "bentoml": "limit 3 rps / BentoML, decode only",
    "fastapi": "limit 3 rps / FastAPI + thread, decode only",
}
CONSTRAINT = "limit 4 constraint on / off"
CONSTRAINT_NARROW = "limit 4 constraint on / off, W 16"
CELLS_RECALL = "limit 5 cells, recall"
CELLS_TIME = "limit 5 cells, time / beam alone"
# Percentages of the catalogue that a filter leaves.
LEFT_BY_FILTER = (10.0, 1.0, 0.1)
CELLS_SHORT = "limit 5 cells, short lists"
HIT_COST = "limit 6 answers, hit / new list"
HIT_RUNS = "limit 6 answers, graph runs of hits"
STALE = "limit 6 answers, stale lists"
INTERLEAVINGS = 10_000
SOAK_ERRORS = "limit 7 soak errors"
SOAK_GROWTH = "limit 7 soak growth"
SOAK_P99 = "limit 7 soak /recommend p99"
BATCH_COST = "limit 8 batch of 100 / 100 single lists"


def cells_filtered(left: float) -> str:
    """Returns the name of the row of recall with a filter that leaves so many per cent of the catalogue."""
    return f"limit 5 cells, recall with a filter that leaves {left:g} %"


@dataclass(frozen=True, slots=True, kw_only=True)
class Criterion:
    """What counts for a row.

    Attributes:
        reading: What is measured, and how.
        unit: Unit of the figure.
        at_most: The limit, or
        at_least: The limit; neither for a figure without one.
        goal: What would be better still.
    """

    reading: str
    unit: str = "×"
    at_most: float | None = None
    at_least: float | None = None
    goal: float | None = None

    @property
    def limit(self) -> str | None:
        """The limit as rows show it."""
        return _bound(self, self.at_most, self.at_least)

    @property
    def aim(self) -> str | None:
        """The goal in the same form."""
        return _bound(self, self.goal, self.goal)

    def row(self, name: str, value: float, command: str) -> results.Row:
        """Returns the row of the criterion, with the unit and the limit that were written down for it."""
        return results.row(name, value, self.unit, command, at_most=self.at_most, at_least=self.at_least)


def _bound(criterion: Criterion, at_most: float | None, at_least: float | None) -> str | None:
    if criterion.at_most is not None:
        return None if at_most is None else f"≤ {at_most:g}"
    if criterion.at_least is not None:
        return None if at_least is None else f"≥ {at_least:g}"
    return None


def _decode_only(name: str) -> Criterion:
    return Criterion(reading=f"The same beside {name} that is given the state of the user, which gpt4rec keeps itself")


CRITERIA: Mapping[str, Criterion] = {
    CPU_IN_TURNS: Criterion(
        reading="Processor time of a warm `/recommend`, its Valkey included ÷ (bare typed FastAPI route + one decoder "
        "run at batch 1); the three take turns request by request; median of 11 rounds of 600 requests",
        at_most=1.2,
    ),
    CPU_IN_LOOPS: Criterion(
        reading="The same, each of the three in a loop of its own",
        at_most=1.8,
    ),
    BEFORE_CPU: Criterion(
        reading="Processor time of service and Valkey for a list with 32 requests in flight (closed loop, one worker) "
        "÷ the same of the commit before; two servers, blocks of the same requests in turns; geometric mean of the "
        "pairs, whose 95 % interval is recorded beside it",
        at_most=0.7,
        goal=0.6,
    ),
    BEFORE_RATE: Criterion(
        reading="Highest rate of an open loop with p99 ≤ 50 ms, no errors and 99 % full lists ÷ the same of the commit "
        "before; two workers each, the search of the comparison with peers, in turns; median of the rounds' ratios",
        at_least=1.4,
        goal=1.7,
    ),
    BEFORE_PLACES: Criterion(
        reading="Places of the top ten that hold the same item as at the commit before, for the same users and "
        "requests by the same artefact (an artefact of the same run where the format has changed)",
        unit="%",
        at_least=99.9,
    ),
    PEERS_SERVERS: Criterion(
        reading="Requests a second at p99 ≤ 50 ms ÷ those of the faster of LitServe and BentoML, which encode and "
        "decode; all systems run as wide as the manifest says; median of the rounds' ratios",
        at_least=5.0,
    ),
    PEERS_FASTAPI: Criterion(
        reading="The same ÷ FastAPI with a thread pool, which encodes and decodes",
        at_least=4.5,
    ),
    PEERS_TORCH: Criterion(
        reading="The same ÷ eager torch behind FastAPI with a thread, its beam search batched over the beam; encodes "
        "and decodes",
        at_least=12.0,
    ),
    **{name: Criterion(
        reading=f"The second reading of `{of}`: all systems keep {WIDE} nodes a level "
        f"(`gpt4rec export --width {WIDE}`)",
        at_least=least,
    ) for (of, name), least in zip(PEERS_WIDE.items(), (5.0, 4.5, 12.0), strict=True)},
    **{PEERS_DECODE_ONLY[key]: _decode_only(name) for key, name in
       (("litserve", "LitServe"), ("bentoml", "BentoML"), ("fastapi", "FastAPI with a thread pool"))},
    CONSTRAINT: Criterion(
        reading="p50 of a run of the decoder graph ÷ p50 of a decoder without any trie, same network, width and "
        "states, one row, a million items, in turns; W = 64",
        at_most=1.25,
    ),
    CONSTRAINT_NARROW: Criterion(
        reading="The same at W = 16, in the same run",
        at_most=1.25,
    ),
    CELLS_RECALL: Criterion(
        reading="Share of the exhaustive top ten that lists by cells hold, a million items, no filter",
        unit="of the top ten",
        at_least=0.99,
        goal=0.995,
    ),
    CELLS_TIME: Criterion(
        reading="p50 of such a list at batch 1 ÷ p50 of today's list of the beam alone, same catalogue, in turns",
        at_most=4.0,
        goal=1.5,
    ),
    **{cells_filtered(left): Criterion(
        reading=f"The same recall, of the exhaustive top ten among the {left:g} % of the items that a filter leaves",
        unit="of the top ten",
        at_least=0.99,
    ) for left in LEFT_BY_FILTER},
    CELLS_SHORT: Criterion(
        reading="Lists of these runs, with filters and without, that have fewer than k items although k were allowed",
        unit="lists",
        at_most=0,
    ),
    HIT_COST: Criterion(
        reading="Processor time of service and Valkey for an answer that was kept ÷ for a list made anew; the two take "
        "turns request by request, users and histories the same",
        at_most=0.65,
    ),
    HIT_RUNS: Criterion(
        reading="Runs of encoder and decoder during these hits",
        unit="runs",
        at_most=0,
    ),
    STALE: Criterion(
        reading=f"Answers that differ from those of a service that keeps none, in {INTERLEAVINGS:,} random "
        "interleavings of lists with events, erasures, switches of model, rules and changes of stock",
        unit=f"of {INTERLEAVINGS} interleavings",
        at_most=0,
    ),
    SOAK_ERRORS: Criterion(
        reading="Errors in five minutes of replay at 70 % of the capacity",
        unit="errors",
        at_most=0,
    ),
    SOAK_GROWTH: Criterion(
        reading="Growth of resident memory in the second half of the replay",
        unit="%",
        at_most=2.0,
    ),
    SOAK_P99: Criterion(
        reading="p99 of `/recommend` in the same replay; the limit is the recorded figure of the commit before, at "
        "70 % of its own, lower capacity",
        unit="ms",
        at_most=37.887,
    ),
    BATCH_COST: Criterion(
        reading="Processor time of service and Valkey for one `/recommend/batch` of 100 users ÷ for 100 single "
        "`/recommend` of the same users, one after another; both warm, blocks in turns; geometric mean of the pairs",
        at_most=0.35,
    ),
}  # fmt: skip


def row(name: str, value: float, command: str) -> results.Row:
    """Returns the row of a criterion, with the unit and the limit that were written down for it.

    Raises:
        KeyError: If no such criterion was written down.
    """
    return CRITERIA[name].row(name, value, command)


def of_limits(rows: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Returns the rows of these criteria by name."""
    return {row["criterion"]: row for row in rows if row["criterion"] in CRITERIA}
