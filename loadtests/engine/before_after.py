"""What a list costs at two commits: two checkouts of the service as two servers, under the same load in turns.

    python -m loadtests.engine.before_after --before CHECKOUT --artifact DIR --data DATA [--before-artifact DIR]

Three measurements (`loadtests.common.limit_criteria` says what is read for each):

- places: both servers are asked for the lists of the same users, and the share of places with the same item is counted
- processor time: blocks of the same requests, a closed loop with 32 in flight, in turns; a round starts both anew
- rate: the highest rate with p99 ≤ 50 ms, of each server in turns, two workers each

This checkout is the one after. If the two do not read the same format of artefacts, `--before-artifact` names an export
of the same run for the other. Lists are made anew: where a service keeps answers, that is switched off.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import orjson
import typer

from loadtests.common import limit_criteria, results
from loadtests.harness.bench import PATIENT, K, batches, history, real_histories, recommend_request
from loadtests.harness.checkout import Checkout
from loadtests.harness.paired_blocks import Pair, block, more_of
from loadtests.harness.served_process import NOTHING_KEPT, REPOSITORY, Served, free_port, serve
from loadtests.load.capacity import Step, capacity
from loadtests.load.open_loop_driver import Arrival, closed_now, poisson
from loadtests.load.replay import RECOMMEND, read, send_beforehand
from service.cli.outermost import run_command

USERS, HISTORY, LEAST = 200, 50, 50
IN_FLIGHT = 32
LIMIT_MS = 50.0
# A search ends after this, with the highest rate that held.
SEARCH_S = 60.0
# As `loadtests.compare` searches.
SEARCH: dict[str, Any] = {
    "seconds": 1.5,
    "warmup_s": 0.5,
    "confirm_s": 4.0,
    "precision": 0.05,
    "full_share": 0.99,
    "timeout_s": 30.0,
}
# Requests whose lists are compared: the beam of the load, a wider one, and what the policies choose.
KINDS: Mapping[str, Mapping[str, Any]] = {
    "beam 5": {"decoding": {"strategy": "beam", "beam_width": 5}},
    "beam 10": {"decoding": {"strategy": "beam", "beam_width": 10}},
    "greedy": {"decoding": {"strategy": "greedy"}},
}
COMMAND = "python -m loadtests.engine.before_after --before CHECKOUT --artifact ARTIFACT --data DATA"
_WARM = 400


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two: a checkout, and the artefact that it serves."""

    checkout: Checkout
    artifact: Path

    @contextmanager
    def served(self, workers: int = 1) -> Iterator[Served]:
        """Serves it until the body ends."""
        chosen = {**PATIENT, **self.checkout.known(NOTHING_KEPT), **self.checkout.environment()}
        # Workers listen on the ports above the shared one, where the other server must not be.
        place = ("--workers", str(workers), "--port", str(free_port(workers + 1)))
        with serve(self.artifact, *place, **chosen) as served:
            yield served


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured: rounds and pairs of blocks, requests of a block, rounds of the search for a rate."""

    rounds: int
    pairs: int
    requests: int
    rate_rounds: int


@dataclass(frozen=True, slots=True)
class Asked:
    """The users, and what loads their histories."""

    histories: Mapping[str, Sequence[str]]
    loading: Sequence[Arrival]

    @classmethod
    def of(cls, data: Path, users: int, least: int) -> Asked:
        """Returns the last events of users with at least `least` of them, with times that both servers get alike."""
        found = real_histories(read(data), users, least=least, longest=HISTORY)
        return cls(found, list(batches(one for name, items in found.items() for one in history(name, items))))

    @property
    def bodies(self) -> list[Arrival]:
        """The request of each user."""
        return [recommend_request(name) for name in self.histories]

    def warm(self, served: Served) -> None:
        """Loads the histories and asks once for every user, so that the states are stored."""
        send_beforehand(served.url, self.loading)
        send_beforehand(served.url, [recommend_request(name, budget_ms=2000) for name in self.histories])


@contextmanager
def both(sides: Sequence[Side], asked: Asked, *, workers: int = 1, first: int = 0) -> Iterator[list[Served]]:
    """Serves both, warm, until the body ends; `first` is started first, since what is started later is elsewhere."""
    with ExitStack() as stack:
        served = {which: stack.enter_context(sides[which].served(workers)) for which in (first, 1 - first)}
        for one in served.values():
            asked.warm(one)
        yield [served[0], served[1]]


def blocks(sides: Sequence[Side], asked: Asked, effort: Effort) -> Iterator[Pair]:
    """Yields pairs of blocks: after, before."""
    bodies = list(islice(cycle(asked.bodies), effort.requests))
    for number in range(effort.rounds):
        with both(sides, asked, first=number % 2) as served:
            for one in served:
                block(one, bodies, IN_FLIGHT)  # caches are filled, and nothing is measured
            for pair in range(effort.pairs):
                first = (number + pair) % 2
                found = {which: block(served[which], bodies, IN_FLIGHT) for which in (first, 1 - first)}
                yield found[1], found[0]


def rates(sides: Sequence[Side], asked: Asked, rounds: int) -> Iterator[dict[str, Any]]:
    """Yields for each round the highest rate of each, and what the search found; both servers live all the time."""
    with both(sides, asked, workers=2) as served:
        for number in range(rounds):
            found: dict[str, Any] = {}
            for which in (number % 2, 1 - number % 2):
                found[("before", "after")[which]] = highest_rate_of(served[which].url, asked.bodies, seed=number)
            yield found


class _OutOfTimeError(Exception):
    """The search has used up its time."""


def highest_rate_of(url: str, bodies: Sequence[Arrival], seed: int) -> dict[str, Any]:
    """Searches the highest rate; out of time, it is the highest that held, and was not confirmed by a longer run."""
    warm = list(islice(cycle(bodies), 4 * _WARM))
    closed = closed_now(url, warm, concurrency=8, skip=_WARM)
    give_up = time.monotonic() + SEARCH_S
    steps: list[Step] = []

    def make(rate: float, seconds: float, salt: int) -> list[Arrival]:
        if time.monotonic() > give_up:
            raise _OutOfTimeError
        rng = np.random.default_rng(salt)
        dues = poisson(rng, rate, seconds)
        chosen = rng.integers(len(bodies), size=len(dues)).tolist()
        return [Arrival(due, RECOMMEND, bodies[row].body) for due, row in zip(dues.tolist(), chosen, strict=True)]

    low, confirmed = max(10.0, 0.6 * closed.answered_rate), True
    try:
        found = capacity(url, make, p99_ms=LIMIT_MS, low=low, seed=1000 * seed, on_step=steps.append, **SEARCH)
        rate = found.rate
    except _OutOfTimeError:
        rate, confirmed = highest_held([(step.rate, step.fault) for step in steps]), False
    return {
        "rate": round(rate, 2),
        "confirmed": confirmed,
        "closed_loop": round(closed.answered_rate, 2),
        "steps": [
            {
                "rate": round(step.rate, 1), "fault": step.fault, "generator_cpu": round(step.report.cpu_share, 3),
                "late_share": round(step.report.late_share, 4), "ms": step.report.routes[RECOMMEND].figures(),
            }
            for step in steps
        ],
    }  # fmt: skip


def highest_held(steps: Sequence[tuple[float, str | None]]) -> float:
    """Returns the highest rate whose last run had no fault; 0 if there is none.

    Args:
        steps: The rate and the fault of each run, in order.
    """
    return max((rate for rate, fault in dict(steps).items() if fault is None), default=0.0)


def places(sides: Sequence[Side], asked: Asked) -> dict[str, dict[str, int]]:
    """Returns for each kind of request how many places were compared, and how many hold the same item."""
    with both(sides, asked) as served:
        found = {}
        for kind, more in KINDS.items():
            lists = [_lists(one.url, asked.histories, more) for one in served]
            found[kind] = same_places(*lists)
    return found


def same_places(before: Mapping[str, Sequence[str]], after: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Counts the places of the longer of two lists, and those that hold the same item in both."""
    pairs = [(before[name], after[name]) for name in before]
    return {
        "places": sum(max(len(old), len(new)) for old, new in pairs),
        "same": sum(one == other for old, new in pairs for one, other in zip(old, new, strict=False)),
    }


def _lists(url: str, names: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, list[str]]:
    asked = [
        Arrival(0.0, RECOMMEND, orjson.dumps({"user_id": name, "k": K, "budget_ms": 2000, **more})) for name in names
    ]
    found = {}
    for name, request in zip(names, asked, strict=True):
        (body,) = send_beforehand(url, [request])
        answer = orjson.loads(body)
        if answer["rung"] != "full":
            raise RuntimeError(f"a list from {answer['rung']}: {answer['reason']}")
        found[name] = [item["item_id"] for item in answer["items"]]
    return found


def share(found: Mapping[str, Mapping[str, int]]) -> float:
    """Returns the places that hold the same item, in per cent of all."""
    return 100.0 * sum(one["same"] for one in found.values()) / sum(one["places"] for one in found.values())


def middle_ratio(rounds: Sequence[Mapping[str, Any]]) -> float:
    """Returns the median over the rounds of the rate after ÷ the rate before.

    Raises:
        ValueError: If no round has both rates.
    """
    ratios = [one["after"]["rate"] / one["before"]["rate"] for one in rounds if one["before"]["rate"]]
    if not ratios:
        raise ValueError("no rate of the checkout before held: the machine was too busy to measure")
    return float(median(ratios))


def main(
    before: Annotated[Path, typer.Option(help="Checkout of the commit before.", exists=True, file_okay=False)],
    artifact: Annotated[Path, typer.Option(help="Artefact folder.")],
    data: Annotated[Path, typer.Option(help="Data set folder with the histories.")],
    before_artifact: Annotated[
        Path | None, typer.Option(help="Artefact of the checkout before; else the same.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=0, help="Rounds of processor time; each starts both servers.")] = 3,
    pairs: Annotated[int, typer.Option(min=1, help="Pairs of blocks in a round.")] = 6,
    requests: Annotated[int, typer.Option(min=1, help="Requests of a block.")] = 2000,
    rate_rounds: Annotated[int, typer.Option(min=0, help="Rounds of the search for a rate.")] = 3,
    compared: Annotated[int, typer.Option(min=0, help="Users whose lists are compared.")] = 900,
    record: Annotated[bool, typer.Option("--record", help="Write rows and figures into loadtests/results.")] = False,
) -> None:
    """Measure what a list costs at two commits."""
    sides = (Side(Checkout(before), before_artifact or artifact), Side(Checkout(REPOSITORY), artifact))
    effort = Effort(rounds, pairs, requests, rate_rounds)
    command = (
        f"{COMMAND} --rounds {rounds} "
        f"--pairs {pairs} --requests {requests} --rate-rounds {rate_rounds} --compared {compared} --record"
    )
    found = _measured(sides, data, effort, compared)
    for name, value in found.rows.items():
        row = limit_criteria.row(name, value, command)
        typer.echo(f"{name}: {row.value:g} {row.unit} ({row.limit}: {'holds' if row.holds else 'DOES NOT HOLD'})")
        if record:
            results.record(results.ENGINE, row)
    if record:
        # Parts of the file may be measured by themselves; the rows have the whole commands.
        kept = results.load("before_after") or {}
        parts = {**{name: kept[name] for name in PARTS if name in kept}, **found.parts}
        results.save("before_after", parts, command=COMMAND + " --record")


PARTS = ("places", "cpu", "rates")


@dataclass(slots=True)
class _Found:
    """Values of the criteria, and parts of the file."""

    rows: dict[str, float]
    parts: dict[str, Any]


def _measured(sides: Sequence[Side], data: Path, effort: Effort, compared: int) -> _Found:
    found = _Found({}, {})
    if compared:
        by_kind = places(sides, Asked.of(data, compared, least=2))
        found.rows[limit_criteria.BEFORE_PLACES] = share(by_kind)
        found.parts["places"] = by_kind
        typer.echo(f"places: {by_kind}")
    asked = Asked.of(data, USERS, LEAST)
    pairs: list[Pair] = []
    for after, before in blocks(sides, asked, effort):
        pairs.append((after, before))
        typer.echo(f"before {before.cpu_us:.0f} µs, after {after.cpu_us:.0f} µs")
    if pairs:
        ratio, low, high = (1.0 + more / 100.0 for more in more_of(pairs, "cpu_us"))
        typer.echo(f"processor time a list: {ratio:.3f} of before (95 % interval {low:.3f} to {high:.3f})")
        found.rows[limit_criteria.BEFORE_CPU] = ratio
        found.parts["cpu"] = {
            "ratio": ratio, "interval": [low, high],
            "pairs": [{"after": asdict(after), "before": asdict(before)} for after, before in pairs],
        }  # fmt: skip
    if effort.rate_rounds:
        rounds = []
        for one in rates(sides, asked, effort.rate_rounds):
            rounds.append(one)
            typer.echo(f"rates: before {one['before']['rate']:.0f}, after {one['after']['rate']:.0f} lists/s")
        found.rows[limit_criteria.BEFORE_RATE] = middle_ratio(rounds)
        found.parts["rates"] = {"ratio": middle_ratio(rounds), "rounds": rounds}
    return found


if __name__ == "__main__":
    run_command(main)
