"""Kafka: every event once, and the stages of an event: `python -m loadtests.loop.kafka --artifact DIR --record`.

`once` sends 10⁶ events in rounds. In each a second consumer joins, the first one and then the broker are killed, and
afterwards every log is compared with what was sent. `stages` follows 500 events a second from the action to a list that
reflects them, and then has a full topic read as fast as it can be. The broker of the tests goes through all batches of
a partition at each fetch, which takes a whole core after 30,000 batches of one event and in the end longer than a fetch
may. So `stages` has rounds, each with a broker of its own. A round that is done is kept in `--work`: the same
command goes on where the one before was interrupted.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from loadtests.common import results
from loadtests.common.hdr import Latencies
from loadtests.load.items import read_items
from loadtests.loop import criteria, kafka_drain, kafka_once, kafka_stages
from service.cli.outermost import run_command
from service.common.atomic_files import write_aside

EVENTS = 1_000_000
ROUND = 100_000
RATE = 500.0
# What the design that the service follows allows each stage, ms (`docs/loop.md`).
DESIGNED = {"broker": "< 10", "store": "< 50", "state": "< 25", "list": "< 15", "all": "< 100"}
_PERCENTILES = (50.0, 95.0, 99.0)

console = Console()


def main(
    artifact: Annotated[Path, typer.Option(help="Artefact folder.")],
    what: Annotated[str, typer.Argument(help="all, once or stages.")] = "all",
    events: Annotated[int, typer.Option(min=60, help="Events of `once`.")] = EVENTS,
    seconds: Annotated[float, typer.Option(min=1, help="Duration of a round of `stages`.")] = 20.0,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of `stages`.")] = 6,
    users: Annotated[int, typer.Option(min=1, help="Users of `stages`.")] = 2000,
    work: Annotated[Path, typer.Option(help="Folder of what is measured so far.")] = Path(".bench/kafka"),
    record: Annotated[bool, typer.Option("--record", help="Write the rows into loadtests/results/loop.json.")] = False,
) -> None:
    """Measure the criteria of Kafka. Exits with 1 if an event is not in the store, or is there twice."""
    if what not in ("all", "once", "stages"):
        raise typer.BadParameter("all, once or stages", param_hint="WHAT")
    command = "python -m loadtests.loop.kafka {} --artifact ARTIFACT --record"
    work.mkdir(parents=True, exist_ok=True)
    artifact, lost = artifact.resolve(), 0
    items = read_items(artifact)
    if what in ("all", "once"):
        lost = _once(artifact, items, events, work, command.format("once"), record=record)
    if what in ("all", "stages"):
        _stages(artifact, items, rounds, seconds, users, command.format("stages"), record=record)
    raise typer.Exit(int(lost > 0))


def _once(artifact: Path, items: Sequence[str], events: int, work: Path, command: str, *, record: bool) -> int:
    """Runs the rounds that are missing; returns how many events are not there exactly once."""
    file = work / f"once-{events}.json"
    done: list[dict[str, Any]] = orjson.loads(file.read_bytes()) if file.exists() else []
    size = min(ROUND, events)
    with _progress("events in the store", events) as advance, _folder() as folder:
        advance(sum(one["sent"] for one in done))
        with kafka_once.scene(folder, artifact) as scene:
            for number in range(len(done), events // size):
                done.append(kafka_once.run_round(scene, number, size, items, advance).to_json())
                write_aside(file, orjson.dumps(done))
    sent, once = (sum(one[name] for one in done) for name in ("sent", "once"))
    wrong = {name: sum(one[name] for one in done) for name in ("missing", "twice", "foreign")}
    seconds = sum(one["seconds"] for one in done)
    console.print(
        f"{once:,} of {sent:,} events once; {wrong}; {len(done)} rounds with a consumer and the broker killed, "
        f"{sum(one['redelivered'] for one in done):,} redelivered, {seconds:.0f} s",
        highlight=False,
    )
    if record:
        results.record(results.LOOP, criteria.row(criteria.KAFKA_ONCE, 100.0 * once / sent, "%", command))
        results.save("loop_kafka_once", {"events": sent, "rounds": done}, command=command, folder=results.RESULTS)
    shutil.rmtree(work)
    return int(sent - once + sum(wrong.values()))


def _stages(
    artifact: Path, items: Sequence[str], rounds: int, seconds: float, users: int, command: str, *, record: bool
) -> None:
    """Measures and prints the table of stages."""
    found = kafka_stages.Found()
    with _progress("events sent", rounds * int(RATE * seconds)) as advance:
        for _ in range(rounds):
            with _folder() as folder:
                found.add(
                    kafka_stages.measure(
                        folder, artifact, items, rate=RATE, seconds=seconds, users=users, advance=lambda: advance(1)
                    )
                )
    with _progress("events of a full topic", kafka_drain.EVENTS) as advance, _folder() as folder:
        throughput = kafka_drain.measure(folder, artifact, items, users=users, advance=advance)
    latencies = {name: Latencies(found.stages[name]) for name in kafka_stages.STAGES}
    for name, latency in latencies.items():
        at = "  ".join(f"p{p:g} {latency.at(p)}" for p in _PERCENTILES)
        console.print(f"{name:>7}  {at} ms  (designed {DESIGNED[name]}; {len(latency):,})", highlight=False)
    console.print(f"{found.unfinished} unfinished, {found.stale} lists that did not reflect the event, "
                  f"{found.failed} requests failed; {throughput:,.0f} events/s from a full topic",
                  highlight=False)  # fmt: skip
    if record:
        for name, latency in latencies.items():
            row = criteria.row(criteria.kafka_stage(name), latency.at(99.0) or 0.0, "ms", command)
            results.record(results.LOOP, row)
        table = {name: {"designed_ms": DESIGNED[name], **latency.report()} for name, latency in latencies.items()}
        counts = {"unfinished": found.unfinished, "stale": found.stale, "failed": found.failed}
        results.save("loop_kafka_stages", {"rate": RATE, "rounds": rounds, "seconds": seconds, "users": users, **counts,
                                           "throughput": throughput,
                                           "stages": table}, command=command, folder=results.RESULTS)  # fmt: skip


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="gpt4rec-kafka-") as folder:
        yield Path(folder)


@contextmanager
def _progress(what: str, total: int) -> Iterator[Any]:
    """Shows a bar with the time left; yields the function that advances it."""
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)


if __name__ == "__main__":
    run_command(main)
