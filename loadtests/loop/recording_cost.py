"""What recording costs a /recommend: the same requests to a service that records and to one that does not, in turn.

    python -m loadtests.loop.recording_cost --artifact artifacts/latest [--rounds 5] [--record]

Both run at the same time, each with a Redis of its own. Blocks of requests alternate between them, so that whatever
else happens on the machine meets both; each round starts them anew, and the first of a pair changes. Processor time
is that of the service and its Redis together, with the work behind the answers. The streams are short, so that each
entry is trimmed as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from itertools import cycle, islice
from pathlib import Path
from typing import Annotated

import orjson
import typer

from loadtests.common import results
from loadtests.harness.bench import PATIENT, batches
from loadtests.harness.paired_blocks import USERS, Pair, block, events, more_of
from loadtests.harness.served_process import serve
from loadtests.load.open_loop_driver import Arrival
from loadtests.load.replay import RECOMMEND, send_beforehand
from loadtests.loop import criteria
from service.cli.outermost import run_command

# Figures of a block, with their criteria and what they are called.
FIGURES: Mapping[str, tuple[str, str]] = {
    "cpu_us": (criteria.COST, "processor time"),
    "median_ms": (criteria.COST_LATENCY, "median latency"),
    "p99_ms": (criteria.COST_TAIL, "p99 of the latency"),
}
_CAP = 100


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
                send_beforehand(one.url, list(batches(events(artifact))))
                block(one, bodies, at_once, settle_s)  # caches are filled, and nothing is measured
            for pair in range(pairs):
                first, second = (on, off) if (number + pair) % 2 else (off, on)
                found = {one.pid: block(one, bodies, at_once, settle_s) for one in (first, second)}
                yield found[on.pid], found[off.pid]


def _bodies() -> list[Arrival]:
    return [Arrival(0.0, RECOMMEND, orjson.dumps({"user_id": f"u{user}", "k": 10})) for user in range(USERS)]


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
