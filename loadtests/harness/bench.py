"""What the commands of the criteria share: where figures go, the requests, histories and warm-up."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from loadtests.common import limit_criteria, results
from loadtests.common.results import Row
from loadtests.harness.served_process import Process
from loadtests.load.open_loop_driver import Arrival
from loadtests.load.replay import BATCH, BEAM, EVENTS, RECOMMEND, User, send_beforehand

K = 10
ROWS = results.ENGINE.name
MINUTE_MS = 60_000
# Long enough for the loading beforehand; a warm answer never comes near it.
PATIENT = {
    "GPT4REC_DEADLINE_MS": "2000",
    "GPT4REC_REDIS_READ_TIMEOUT_MS": "500",
    "GPT4REC_REDIS_WRITE_TIMEOUT_MS": "2000",
}
_SETTLED_S = 0.004


@dataclass(frozen=True, slots=True)
class Bench:
    """One run of a command.

    Attributes:
        artifact: Artefact folder to serve.
        data: Data set folder; None if the command needs none.
        command: The command as the documents show it.
        console: Where progress is printed.
        results: Folder of the figures.
        quick: Do little work, to try the command.
        rows: Name of the file of its rows, in `results`.
    """

    artifact: Path
    data: Path | None
    command: str
    console: Console
    results: Path = results.RESULTS
    quick: bool = False
    rows: str = ROWS

    def row(self, criterion: str, value: float, unit: str, **limit: float) -> None:
        """Records a row and prints it."""
        self._record(results.row(criterion, value, unit, self.command, **limit))

    def limit(self, criterion: str, value: float) -> None:
        """Records a row of `loadtests.common.limit_criteria` and prints it."""
        self._record(limit_criteria.row(criterion, value, self.command))

    def _record(self, row: Row) -> None:
        results.record(self.results / self.rows, row)
        said = "" if row.holds is None else f"  ({row.limit}: {'holds' if row.holds else 'DOES NOT HOLD'})"
        self.console.print(f"  {row.criterion}: {row.value:g} {row.unit}{said}", highlight=False)

    def save(self, name: str, payload: Mapping[str, Any]) -> None:
        """Writes a payload, with the command."""
        results.save(name, payload, command=self.command, folder=self.results)

    def some(self, many: int, few: int) -> int:
        """Returns `many`, or `few` on a quick run."""
        return few if self.quick else many

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator[Any]:
        """Shows a bar; yields the function that advances it by one."""
        columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as bar:
            task = bar.add_task(what, total=total)
            yield lambda: bar.advance(task)


def recommend_request(name: str, *, k: int = K, beam: int = 5, **more: Any) -> Arrival:
    """Returns a /recommend with the policy that every row is measured with."""
    body = {"user_id": name, "k": k, "decoding": {**BEAM, "beam_width": beam}, **more}
    return Arrival(0.0, RECOMMEND, orjson.dumps(body))


def events_request(events: Sequence[Mapping[str, Any]]) -> Arrival:
    """Returns a /events request."""
    return Arrival(0.0, EVENTS, orjson.dumps({"events": list(events)}))


def event(name: str, item: str, time_ms: int, **more: Any) -> dict[str, Any]:
    """Returns a click in the body of /events."""
    return {"user_id": name, "item_id": item, "type": "click", "timestamp": time_ms, **more}


def history(name: str, items: Sequence[str]) -> list[dict[str, Any]]:
    """Returns a click on each item, a minute apart, the last an hour ago."""
    end = int(time.time() * 1000) - 60 * MINUTE_MS
    return [event(name, item, end - (len(items) - n) * MINUTE_MS) for n, item in enumerate(items)]


def batches(events: Iterable[Mapping[str, Any]], size: int = BATCH) -> Iterator[Arrival]:
    """Yields /events requests for many events."""
    part: list[Mapping[str, Any]] = []
    for one in events:
        part.append(one)
        if len(part) == size:
            yield events_request(part)
            part = []
    if part:
        yield events_request(part)


def load(bench: Bench, url: str, what: str, bodies: Sequence[Arrival], at_once: int = 8) -> None:
    """Sends requests that a run needs beforehand, with a progress bar."""
    with bench.progress(what, len(bodies)) as advance:
        for start in range(0, len(bodies), at_once):
            part = bodies[start : start + at_once]
            send_beforehand(url, part)
            for _ in part:
                advance()


def warm(bench: Bench, url: str, names: Sequence[str]) -> None:
    """Asks once for every user, with time to compute the state, so that it is stored."""
    load(bench, url, "states", [recommend_request(name, budget_ms=2000) for name in names], at_once=50)


def real_histories(users: Sequence[User], n: int, *, least: int, longest: int) -> dict[str, list[str]]:
    """Returns the last events of the first `n` users with at least `least` of them, by user.

    Raises:
        ValueError: If there is no such user.
    """
    chosen = [user for user in users if len(user.item) >= least][:n]
    if not chosen:
        raise ValueError(f"no user of the data set has {least} events")
    return {user.name: list(user.item[-longest:]) for user in chosen}


def settle(*processes: Process, within_s: float = 10.0) -> None:
    """Waits until the processes are idle, so that work behind the answers is done."""
    until = time.monotonic() + within_s
    quiet = 0
    before = sum(process.cpu_s() for process in processes)
    while quiet < 2 and time.monotonic() < until:
        time.sleep(0.05)
        now = sum(process.cpu_s() for process in processes)
        quiet = quiet + 1 if now - before < _SETTLED_S else 0
        before = now


def median(values: Iterable[float]) -> float:
    """Returns the median."""
    return float(statistics.median(values))
