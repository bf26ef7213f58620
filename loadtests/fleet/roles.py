"""What the division of roles does to the processes that answer: two of `all`, and one `answer` with one `encode`.

    python -m loadtests.fleet.roles --artifact artifacts/latest [--seconds 20] [--pairs 8] [--record]

Both fleets run at the same time, each with a Valkey of its own, and get the same lists and events at the same rates, in
turns: the two of `all` share them, the one of `answer` gets them all. Processor time is that of a block with the work
behind it. Users repeat, so most lists follow an event that somebody has encoded by then.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import orjson
import typer
import uvloop

from loadtests.common import results
from loadtests.harness.bench import PATIENT, batches, settle
from loadtests.harness.paired_blocks import events
from loadtests.harness.scraped import scraped
from loadtests.harness.served_process import NOTHING_KEPT, Process, started
from loadtests.harness.valkey import TcpValkey
from loadtests.load.arrivals import Record
from loadtests.load.open_loop_driver import Arrival, drive, poisson
from loadtests.load.replay import RECOMMEND, send_beforehand
from service.artifact.artifact import Artifact
from service.cli.outermost import run_command

USERS = 2000
K = 10
FIGURES: Mapping[str, str] = {
    "answering_us": "processor time of the answering processes",
    "all_us": "processor time of all processes with Valkey",
    "median_ms": "median of /recommend",
    "p99_ms": "p99 of /recommend",
}


@dataclass(frozen=True, slots=True)
class Figures:
    """What a block took.

    Attributes:
        answering_us: Processor time of the processes that answer, for each list, microseconds.
        all_us: The same of all processes and Valkey.
        median_ms: Median latency of the lists.
        p99_ms: 99th percentile of it.
    """

    answering_us: float
    all_us: float
    median_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Fleet:
    """Processes on one Valkey.

    Attributes:
        urls: Of those that answer; requests go to them in turns.
        answering: The processes that answer.
        others: The other ones, Valkey among them.
        encoder: URL of what encodes; None if those that answer do.
    """

    urls: Sequence[str]
    answering: Sequence[Process]
    others: Sequence[Process]
    encoder: str | None

    @property
    def processes(self) -> list[Process]:
        """All of them."""
        return [*self.answering, *self.others]


@contextmanager
def fleet(artifact: Path, roles: Sequence[str], log: Path) -> Iterator[Fleet]:
    """Runs processes with these roles on a Valkey of their own until the body ends."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gpt4rec-roles-")))
        valkey = stack.enter_context(TcpValkey(folder / "valkey", fsync="everysec"))
        started_as: list[tuple[str, str, Process]] = []
        for role in roles:
            command = [sys.executable, "-m", "service.cli", "serve", "--artifact", str(artifact.resolve()),
                       "--log-level", "warning", "--redis", valkey.url, "--role", role]  # fmt: skip
            one, url, _ = stack.enter_context(
                started(command, "/readyz", log, **PATIENT, **NOTHING_KEPT, GPT4REC_EXPOSURES="false")
            )
            started_as.append((role, url, Process(one.pid)))
        yield Fleet(
            [url for role, url, _ in started_as if role != "encode"],
            [one for role, _, one in started_as if role != "encode"],
            [*(one for role, _, one in started_as if role == "encode"), Process(valkey.pid)],
            next((url for role, url, _ in started_as if role == "encode"), None),
        )


def work(items: Sequence[str], rng: np.random.Generator, seconds: float, lists: float, clicks: float) -> list[Arrival]:
    """Returns lists and events of users drawn at random, as they are due; each event is of its own request."""
    now = int(time.time() * 1000) - 3_600_000
    found = [
        Arrival(due, RECOMMEND, orjson.dumps({"user_id": f"u{rng.integers(USERS)}", "k": K}))
        for due in poisson(rng, lists, seconds)
    ]
    for due in poisson(rng, clicks, seconds):
        event = {
            "user_id": f"u{rng.integers(USERS)}",
            "item_id": items[int(rng.integers(len(items)))],
            "type": "click",
            "timestamp": now + int(due * 1000),
        }
        found.append(Arrival(due, "/events", orjson.dumps({"events": [event]})))
    return sorted(found, key=lambda one: one.due_s)


def block(one: Fleet, arrivals: Sequence[Arrival], settle_s: float = 20.0) -> Figures:
    """Sends the work to a fleet, and returns what it took.

    Raises:
        RuntimeError: A request failed.
    """
    settle(*one.processes, within_s=settle_s)
    answering, everything = _cpu_s(one.answering), _cpu_s(one.processes)
    records = uvloop.run(_driven(one, arrivals))
    settle(*one.processes, within_s=settle_s)
    answering, everything = _cpu_s(one.answering) - answering, _cpu_s(one.processes) - everything
    answers = [answer for record in records for answer in record.answers]
    if failed := [answer for answer in answers if answer.status != 200]:
        raise RuntimeError(f"{len(failed)} requests failed, the first with {failed[0].status}")
    took_ms = [1e3 * (answer.took_s or 0.0) for answer in answers if answer.label == RECOMMEND]
    return Figures(
        1e6 * answering / len(took_ms),
        1e6 * everything / len(took_ms),
        float(np.median(took_ms)),
        float(np.quantile(took_ms, 0.99)),
    )


async def _driven(one: Fleet, arrivals: Sequence[Arrival]) -> list[Record]:
    shares, records = len(one.urls), [Record() for _ in one.urls]
    await asyncio.gather(
        *(
            drive(url, arrivals[number::shares], warmup_s=0.0, record=records[number])
            for number, url in enumerate(one.urls)
        )
    )
    return records


def _cpu_s(processes: Sequence[Process]) -> float:
    return sum(process.cpu_s() for process in processes)


def compared(pairs: Sequence[tuple[Figures, Figures]], figure: str) -> float:
    """Returns a figure of the first of each pair ÷ that of the second, as the geometric mean of the pairs."""
    ratios = [np.log(getattr(roles, figure) / getattr(alike, figure)) for roles, alike in pairs]
    return float(np.exp(np.mean(ratios)))


def measure(
    artifact: Path, pairs: int, seconds: float, lists: float, clicks: float, log: Path
) -> tuple[list[tuple[Figures, Figures]], float]:
    """Returns pairs of blocks, with roles and without, and the share of entries that were encoded within 100 ms."""
    rng, items = np.random.default_rng(0), Artifact.open(artifact).catalogue.item_ids
    found = []
    with fleet(artifact, ("answer", "encode"), log) as roles, fleet(artifact, ("all", "all"), log) as alike:
        for one in (roles, alike):
            send_beforehand(one.urls[0], list(batches(events(artifact))))
            block(one, work(items, rng, min(seconds, 5.0), lists, clicks))  # nothing of it is measured
        for number in range(pairs):
            arrivals = work(items, rng, seconds, lists, clicks)
            turns = (roles, alike) if number % 2 else (alike, roles)
            took = {id(one): block(one, arrivals) for one in turns}
            found.append((took[id(roles)], took[id(alike)]))
            typer.echo(f"roles {took[id(roles)]}, all {took[id(alike)]}")
        assert roles.encoder is not None  # noqa: S101 - one of its processes encodes
        figures = scraped(roles.encoder)
    name = "gpt4rec_encode_delay_seconds"
    return found, 100.0 * figures[f'{name}_bucket{{le="0.1"}}'] / figures[f"{name}_count"]


def main(
    artifact: Annotated[Path, typer.Option(help="Artefact folder.")],
    pairs: Annotated[int, typer.Option(min=1, help="Pairs of blocks.")] = 8,
    seconds: Annotated[float, typer.Option(min=1, help="Length of a block.")] = 20.0,
    lists: Annotated[float, typer.Option(min=1, help="Lists a second.")] = 100.0,
    clicks: Annotated[float, typer.Option(min=1, help="Events a second, each in a request of its own.")] = 200.0,
    record: Annotated[bool, typer.Option("--record", help="Write the rows into loadtests/results/fleet.json.")] = False,
) -> None:
    """Compare one process that answers and one that encodes with two that do both."""
    with tempfile.TemporaryDirectory(prefix="gpt4rec-roles-log-") as folder:
        found, soon = measure(artifact, pairs, seconds, lists, clicks, Path(folder) / "log")
    command = f"python -m loadtests.fleet.roles --artifact ARTIFACT --pairs {pairs} --seconds {seconds:g} --record"
    rows = [
        results.row(f"roles: {name}, 1 answer and 1 encode / 2 all", compared(found, figure), "", command)
        for figure, name in FIGURES.items()
    ]
    rows.append(results.row("roles: entries encoded and stored within 100 ms", soon, "%", command))
    for row in rows:
        typer.echo(f"{row.criterion}: {row.value:g} {row.unit}")
        if record:
            results.record(results.FLEET, row)


if __name__ == "__main__":
    run_command(main)
