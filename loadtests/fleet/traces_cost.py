"""What traces cost a /recommend: switched on at 1 % sampling, and switched off beside the commit before them.

    git worktree add /tmp/after COMMIT && git worktree add /tmp/before COMMIT~1
    python -m loadtests.fleet.traces_cost --artifact artifacts/latest --after /tmp/after --before /tmp/before [--record]

COMMIT is the one that brought traces: later ones brought other things too. Four servers run at the same time, each with
a Redis of its own: this checkout with traces and without, the commit that brought them, with traces off, and the one
before it. Blocks of the same requests go to them in turns, so that whatever else happens on the machine meets all of
them; each round starts them anew, and the order changes from block to block. Processor time is that of the service and
its Redis together. Spans go to a collector on this machine, which is not counted.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from itertools import cycle, islice
from pathlib import Path
from typing import Annotated

import orjson
import typer

from loadtests.common import results
from loadtests.fleet import fleet_criteria
from loadtests.harness.bench import PATIENT, batches
from loadtests.harness.checkout import Checkout
from loadtests.harness.collector import Collected, collector
from loadtests.harness.paired_blocks import USERS, Block, block, events, more_of
from loadtests.harness.served_process import NOTHING_KEPT, REPOSITORY, Served, serve
from loadtests.load.open_loop_driver import Arrival
from loadtests.load.replay import RECOMMEND, send_beforehand
from service.cli.outermost import run_command

ON, OFF, AFTER, BEFORE = "on", "off", "after", "before"
COMMAND = "python -m loadtests.fleet.traces_cost --artifact ARTIFACT --after CHECKOUT --before CHECKOUT"
# Which side is compared with which, for which criterion.
COMPARED: Mapping[str, tuple[str, str]] = {
    fleet_criteria.TRACES_ON: (ON, OFF),
    fleet_criteria.TRACES_OFF: (AFTER, BEFORE),
}
FIGURES = {"cpu_us": "processor time", "median_ms": "median latency", "p99_ms": "p99 of the latency"}


def measure(
    artifact: Path,
    after: Checkout,
    before: Checkout,
    collected: Collected,
    rounds: int,
    turns: int,
    requests: int,
    at_once: int,
    settle_s: float = 10.0,
) -> Iterator[dict[str, Block]]:
    """Yields turns: a block of each side.

    Args:
        artifact: What is served.
        after: The commit that brought traces.
        before: The one before it.
        collected: Where spans go.
        rounds: How often the servers are started.
        turns: Turns of each round.
        requests: Requests of a block.
        at_once: How many are in flight.
        settle_s: Longest wait for the work behind the answers.
    """
    bodies = list(islice(cycle(_bodies()), requests))
    here = Checkout(REPOSITORY)
    for number in range(rounds):
        with ExitStack() as stack:
            served = {
                ON: stack.enter_context(_served(artifact, here, GPT4REC_TRACES=collected.url)),
                OFF: stack.enter_context(_served(artifact, here)),
                AFTER: stack.enter_context(_served(artifact, after)),
                BEFORE: stack.enter_context(_served(artifact, before)),
            }
            for one in served.values():
                send_beforehand(one.url, list(batches(events(artifact))))
                block(one, bodies, at_once, settle_s)  # caches are filled, and nothing is measured
            for turn in range(turns):
                first = (number + turn) % len(served)
                order = [*list(served)[first:], *list(served)[:first]]
                yield {side: block(served[side], bodies, at_once, settle_s) for side in order}


def _served(artifact: Path, checkout: Checkout, **settings: str) -> AbstractContextManager[Served]:
    chosen = {**PATIENT, **checkout.known(NOTHING_KEPT), **checkout.environment(), **settings}
    return serve(artifact, **chosen)


def _bodies() -> list[Arrival]:
    return [Arrival(0.0, RECOMMEND, orjson.dumps({"user_id": f"u{user}", "k": 10})) for user in range(USERS)]


def main(
    artifact: Annotated[Path, typer.Option(help="Artefact folder.")],
    after: Annotated[Path, typer.Option(help="Checkout of the commit that brought traces.")],
    before: Annotated[Path, typer.Option(help="Checkout of the commit before it.")],
    rounds: Annotated[int, typer.Option(min=1, help="How often the servers are started.")] = 5,
    turns: Annotated[int, typer.Option(min=1, help="Blocks of each server in a round.")] = 8,
    requests: Annotated[int, typer.Option(min=1, help="Requests of a block.")] = 2000,
    at_once: Annotated[int, typer.Option(min=1, help="Requests in flight.")] = 2,
    record: Annotated[bool, typer.Option("--record", help="Write the rows into loadtests/results/fleet.json.")] = False,
) -> None:
    """Measure what traces cost a /recommend."""
    found: list[dict[str, Block]] = []
    with tempfile.TemporaryDirectory(prefix="gpt4rec-traces-") as folder, collector(Path(folder)) as collected:
        sides = Checkout(after), Checkout(before)
        for turn in measure(artifact, *sides, collected, rounds, turns, requests, at_once):
            found.append(turn)
            typer.echo(", ".join(f"{side} {one.cpu_us:.0f} µs" for side, one in sorted(turn.items())))
        typer.echo(f"{len(collected.spans())} spans were collected, by {collected.name}")
    command = f"{COMMAND} --rounds {rounds} --turns {turns} --requests {requests} --record"
    for criterion, (one, other) in COMPARED.items():
        for figure, name in FIGURES.items():
            mean, low, high = more_of([(turn[one], turn[other]) for turn in found], figure)
            typer.echo(
                f"{name}: {mean:+.1f} % {one} / {other} (95 % interval {low:+.1f} to {high:+.1f} %), {len(found)} turns"
            )
            if record and figure == "cpu_us":
                row = fleet_criteria.row(criterion, round(1.0 + mean / 100.0, 4), command)
                results.record(results.FLEET, row)


if __name__ == "__main__":
    run_command(main)
