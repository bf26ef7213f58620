"""What recording costs a /recommend: the same requests to a service that records and to one that does not, in turn.

    python -m loadtests.loop.recording_cost --artifact artifacts/latest [--rounds 5] [--record]

Both run at the same time, each with a Redis of its own. Blocks of requests alternate between them, so that whatever
else happens on the machine meets both; each round starts them anew, and the first of a pair changes. Processor time
is that of the service and its Redis together, with the work behind the answers. The streams are short, so that each
entry is trimmed as well.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Annotated

import numpy as np
import orjson
import typer

from loadtests.common import results
from loadtests.harness.bench import PATIENT, batches, history, settle
from loadtests.harness.served_process import Process, Served, serve
from loadtests.load.open_loop_driver import Arrival, closed_now
from loadtests.load.replay import RECOMMEND, send_beforehand
from loadtests.loop import criteria
from service.artifact.artifact import Artifact
from service.cli.outermost import run_command

# Figures of a block, with their criteria and what they are called.
FIGURES: Mapping[str, tuple[str, str]] = {
    "cpu_us": (criteria.COST, "processor time"),
    "median_ms": (criteria.COST_LATENCY, "median latency"),
    "p99_ms": (criteria.COST_TAIL, "p99 of the latency"),
}
_USERS = 64
_LONGEST = 40
_CAP = 100
_RESAMPLES = 5000
# Lists are written within a quarter of a second: processes that are idle until then have not done that work yet.
_BEHIND_S = 0.4


@dataclass(frozen=True, slots=True)
class Block:
    """What a block of requests took.

    Attributes:
        cpu_us: Processor time of a request, microseconds.
        median_ms: Median latency.
        p99_ms: 99th percentile of the latency.
    """

    cpu_us: float
    median_ms: float
    p99_ms: float


Pair = tuple[Block, Block]


def measure(
    artifact: Path, rounds: int, pairs: int, requests: int, at_once: int, settle_s: float = 10.0
) -> Iterator[Pair]:
    """Yields pairs of blocks, recorded and not.

    Args:
        artifact: What is served.
        rounds: How often both services are started.
        pairs: Pairs of blocks in each round.
        requests: Requests of a block.
        at_once: How many are in flight.
        settle_s: Longest wait for the work behind the answers.
    """
    bodies = list(islice(cycle(_bodies()), requests))
    for number in range(rounds):
        with ExitStack() as stack:
            on, off = (
                stack.enter_context(serve(artifact, **PATIENT, GPT4REC_EXPOSURES=word, GPT4REC_EXPOSURES_CAP=str(_CAP)))
                for word in ("true", "false")
            )
            for one in (on, off):
                send_beforehand(one.url, list(batches(_events(artifact))))
                _block(one, bodies, at_once, settle_s)  # caches are filled, and nothing is measured
            for pair in range(pairs):
                first, second = (on, off) if (number + pair) % 2 else (off, on)
                found = {one.pid: _block(one, bodies, at_once, settle_s) for one in (first, second)}
                yield found[on.pid], found[off.pid]


def more_of(pairs: Sequence[Pair], figure: str, seed: int = 0) -> tuple[float, float, float]:
    """Returns by how many per cent a figure of `Block` is more with recording, and the ends of its 95 % interval.

    The value is the geometric mean over the pairs; the interval is that of a bootstrap over them.
    """
    ratios = np.log([getattr(on, figure) / getattr(off, figure) for on, off in pairs])
    drawn = np.random.default_rng(seed).choice(ratios, (_RESAMPLES, len(ratios))).mean(axis=1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    mean, low, high = (100.0 * (np.exp(value) - 1.0) for value in (ratios.mean(), low, high))
    return float(mean), float(low), float(high)


def _events(artifact: Path) -> Iterator[dict[str, object]]:
    """Histories of all lengths, so that all segments occur."""
    ids = Artifact.open(artifact).catalogue.item_ids
    for user in range(_USERS):
        n = 1 + user * _LONGEST // _USERS
        yield from history(f"u{user}", [ids[(7 * user + 3 * i) % len(ids)] for i in range(n)])


def _bodies() -> list[Arrival]:
    return [Arrival(0.0, RECOMMEND, orjson.dumps({"user_id": f"u{user}", "k": 10})) for user in range(_USERS)]


def _block(served: Served, bodies: Sequence[Arrival], at_once: int, settle_s: float) -> Block:
    processes: list[Process] = [served, *([served.valkey] if served.valkey is not None else [])]
    settle(*processes, within_s=settle_s)
    before = sum(process.cpu_s() for process in processes)
    report = closed_now(served.url, bodies, concurrency=at_once)
    time.sleep(_BEHIND_S)
    settle(*processes, within_s=settle_s)
    if report.errors:
        raise RuntimeError(f"requests failed: {report.errors}")
    took_s = sum(process.cpu_s() for process in processes) - before
    latencies = report.routes[RECOMMEND]
    return Block(1e6 * took_s / len(bodies), latencies.at(50) or 0.0, latencies.at(99) or 0.0)


def main(
    artifact: Annotated[Path, typer.Option(help="Artefact folder.")],
    rounds: Annotated[int, typer.Option(min=1, help="How often the services are started.")] = 5,
    pairs: Annotated[int, typer.Option(min=1, help="Pairs of blocks in a round.")] = 8,
    requests: Annotated[int, typer.Option(min=1, help="Requests of a block.")] = 2000,
    at_once: Annotated[int, typer.Option(min=1, help="Requests in flight.")] = 2,
    record: Annotated[bool, typer.Option("--record", help="Write the rows into loadtests/results/loop.json.")] = False,
) -> None:
    """Measure what recording costs a /recommend."""
    found = []
    for on, off in measure(artifact, rounds, pairs, requests, at_once):
        found.append((on, off))
        typer.echo(
            f"with {on.cpu_us:.0f} µs (median {on.median_ms:.2f}, p99 {on.p99_ms:.2f} ms), "
            f"without {off.cpu_us:.0f} µs (median {off.median_ms:.2f}, p99 {off.p99_ms:.2f} ms)"
        )
    command = f"python -m loadtests.loop.recording_cost --artifact ARTIFACT --rounds {rounds} --record"
    for figure, (criterion, name) in FIGURES.items():
        mean, low, high = more_of(found, figure)
        typer.echo(
            f"{name}: {mean:+.1f} % with recording (95 % interval {low:+.1f} to {high:+.1f} %), {len(found)} pairs"
        )
        if record:
            results.record(results.LOOP, criteria.row(criterion, high, "%", command))


if __name__ == "__main__":
    run_command(main)
