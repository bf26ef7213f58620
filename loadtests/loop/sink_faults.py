"""Kills the sink and the service while lists are shown, and compares the files of the log with the streams.

    python -m loadtests.loop.sink_faults --artifact DIR [--rounds 10] [--lists 2000] [--record]

In each round the sink is killed while it writes, after a third of the lists, and the service after two thirds; the sink
of the next round goes on. A random log with duplicates, late events, merges and erasures comes in beside. In the end
the streams, which are large enough to keep everything, say what the files must hold.

Lists that were answered and are not in the streams must be among those that the service counted when it was killed: as
waiting, dropped or failed. After the rounds a service is stopped instead of killed; it must have written them all.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import httpx
import redis
import typer

from loadtests.common import results
from loadtests.harness.scraped import scraped
from loadtests.harness.served_process import serve
from loadtests.harness.sink_process import SinkProcess
from loadtests.harness.valkey import TcpValkey
from loadtests.loop import criteria, logged
from loadtests.loop.random_logs import Row, random_log
from model.online.log_folder import LogFolder
from model.online.log_schema import entry_row
from service.cli.outermost import run_command
from service.store.streams.log_streams import STREAMS, Shard

SHARDS = 4
PREFIX = "gpt4rec:"
_HOURS = 12
_USERS = 40
_WRITTEN_S = 60.0
_NOT_WRITTEN = ("dropped", "failed", "not_sampled")
_SERVICE = {"GPT4REC_EXPOSURES_CAP": "1000000", "GPT4REC_EXPOSURES_SHARDS": str(SHARDS), "GPT4REC_DEADLINE_MS": "2000",
            "GPT4REC_REDIS_READ_TIMEOUT_MS": "500", "GPT4REC_REDIS_WRITE_TIMEOUT_MS": "2000"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Served:
    """What a service answered until its end.

    Attributes:
        answered: Lists.
        missing_most: How many of them may be missing in the streams, by its own figures.
        unaccounted: By how many its figures are off the lists that were answered.
    """

    answered: frozenset[str]
    missing_most: int
    unaccounted: int


@dataclass(slots=True)
class Found:
    """What the streams and the files say.

    Attributes:
        services: What each service answered.
        acknowledged: Lists in the streams.
        lost: Lists of the streams that no file has.
        twice: Rows of lists in files beyond those of the streams.
        outcomes: Joined outcomes.
        differ: Outcomes and lists that differ from plain loops over the streams.
        unfinished: Erasures that have not reached the files.
    """

    services: list[Served] = field(default_factory=list)
    acknowledged: set[str] = field(default_factory=set)
    lost: int = 0
    twice: int = 0
    outcomes: int = 0
    differ: int = 0
    unfinished: int = 0

    @property
    def answered(self) -> set[str]:
        """Lists that were answered."""
        return set().union(*(one.answered for one in self.services))

    @property
    def never_written(self) -> int:
        """Lists that were answered and waited when the service was killed."""
        return len(self.answered - self.acknowledged)

    @property
    def uncounted(self) -> int:
        """Lists that were answered, and that neither the streams nor the figures of the service account for."""
        return sum(
            one.unaccounted + max(0, len(one.answered - self.acknowledged) - one.missing_most) for one in self.services
        )

    @property
    def wrong(self) -> int:
        """Whatever must be zero."""
        return self.lost + self.twice + self.differ + self.unfinished + self.uncounted


def main(
    artifact: Annotated[Path, typer.Option(help="Artefact folder.")],
    rounds: Annotated[int, typer.Option(min=1, help="How often each process is killed.")] = 10,
    lists: Annotated[int, typer.Option(min=6, help="Lists of a round.")] = 2000,
    events: Annotated[int, typer.Option(min=100, help="Events of the random log.")] = 100_000,
    record: Annotated[bool, typer.Option("--record", help="Write the rows into loadtests/results/loop.json.")] = False,
) -> None:
    """Kill the sink and the service, and compare files and streams. Exits with 1 if anything is lost or differs."""
    found = run(artifact.resolve(), rounds=rounds, lists=lists, events=events)
    typer.echo(
        f"{len(found.answered):,} lists answered, {found.never_written} of them waited when the service was killed, "
        f"{found.uncounted} uncounted; "
        f"{len(found.acknowledged):,} lists in the streams, {found.lost} lost, {found.twice} twice in the files; "
        f"{found.outcomes:,} outcomes, {found.differ} differ from plain loops; sink and service killed {rounds} times"
    )
    if record:
        command = f"python -m loadtests.loop.sink_faults --artifact ARTIFACT --rounds {rounds} --lists {lists} --record"
        results.record(results.LOOP, criteria.row(criteria.SINK_LOST, found.lost + found.twice, "lists", command))
        results.record(results.LOOP, criteria.row(criteria.SINK_COUNTED, found.uncounted, "lists", command))
        results.record(results.LOOP, criteria.row(criteria.SINK_JOIN, found.differ, "outcomes", command))
    raise typer.Exit(int(found.wrong > 0))


def run(artifact: Path, *, rounds: int, lists: int, events: int, stop: bool = True, seed: int = 19) -> Found:
    """Runs the rounds, and compares.

    Args:
        artifact: What the service serves.
        rounds: Number of rounds.
        lists: Lists that are asked for in each.
        events: Events of the random log that comes in beside.
        stop: Whether a last service is stopped.
        seed: Seed of that log.
    """
    # Of today, because the sink deletes what is old.
    start_ms = int(time.time() * 1000) - (_HOURS + 1) * 3_600_000
    log = random_log(seed, events=events, subjects=max(8, events // 50), items=40, hours=_HOURS, start_ms=start_ms)
    entries = list(logged.entries(log, SHARDS))
    found = Found()
    with tempfile.TemporaryDirectory(prefix="gpt4rec-sink-") as name:
        folder = Path(name)
        with TcpValkey(folder / "valkey", fsync="everysec") as valkey:
            for number in range(rounds):
                part = entries[number * len(entries) // rounds : (number + 1) * len(entries) // rounds]
                with serve(artifact, "--redis", valkey.url, **_SERVICE) as service:
                    found.services.append(_round(folder, valkey.url, service.url, service.pid, lists, part))
            if stop:
                with serve(artifact, "--redis", valkey.url, **_SERVICE) as service:
                    found.services.append(_stopped(service.url, lists))
            with SinkProcess(folder, valkey.url, folder / "log", "--once", "--erase-now") as last:
                if last.process.wait(600.0) != 0:
                    raise OSError(last.messages[-1500:])
            _compare(found, valkey.url, LogFolder(folder / "log"))
    return found


def _round(folder: Path, redis_url: str, service_url: str, pid: int, lists: int, entries: Sequence[Any]) -> Served:
    answered = set[str]()
    sink = SinkProcess(folder, redis_url, folder / "log", "--batch-s", "0.05")
    try:
        with httpx.Client(base_url=service_url, timeout=30.0) as client, redis.Redis.from_url(redis_url) as store:
            _append(store, entries[: len(entries) // 2])
            for number in range(2 * lists // 3):
                if number == lists // 3:
                    _await_file(sink, folder / "log")
                    sink.kill9()
                    _append(store, entries[len(entries) // 2 :])
                user = f"u{number % _USERS}"
                answer = _answer(client, user)
                answered.add(answer["list_id"])
                item = answer["items"][number % len(answer["items"])]["item_id"]
                event = {"user_id": user, "item_id": item, "type": "click", "list_id": answer["list_id"]}
                event["timestamp"] = int(time.time() * 1000)
                client.post("/events", json={"events": [event] * (1 + number % 2)}).raise_for_status()
            served = _served(service_url, answered)
            os.kill(pid, signal.SIGKILL)
    finally:
        sink.close()
    return served


def _stopped(service_url: str, lists: int) -> Served:
    """Asks for lists until the service is stopped; none may be missing then."""
    with httpx.Client(base_url=service_url, timeout=30.0) as client:
        answered = {_answer(client, f"u{number % _USERS}")["list_id"] for number in range(lists // 3)}
    return replace(_served(service_url, answered), missing_most=0)


def _answer(client: httpx.Client, user: str) -> dict[str, Any]:
    answer: dict[str, Any] = client.post("/recommend", json={"user_id": user, "k": 5}).raise_for_status().json()
    return answer


def _served(service_url: str, answered: set[str]) -> Served:
    """What a service says of its lists, whose answers have all come."""
    figures = scraped(service_url)
    of = {word: int(figures.get(f'gpt4rec_exposures_total{{outcome="{word}"}}', 0)) for word in _NOT_WRITTEN}
    waiting = int(figures['gpt4rec_exposures_waiting{stream="exposures"}'])
    recorded = int(figures['gpt4rec_exposures_total{outcome="recorded"}'])
    missing = waiting + sum(of.values())
    return Served(frozenset(answered), missing, abs(recorded + missing - len(answered)))


def _await_file(sink: SinkProcess, log: Path) -> None:
    """Waits until a sink has written something. Raises OSError if it does not."""
    _ = sink.port
    until = time.monotonic() + _WRITTEN_S
    while not any(log.rglob("*.parquet")):
        if sink.process.poll() is not None or time.monotonic() > until:
            raise OSError(sink.messages[-1500:])
        time.sleep(0.002)


def _append(store: redis.Redis, entries: Sequence[tuple[Shard, Sequence[str | bytes]]]) -> None:
    pipe = store.pipeline(transaction=False)
    for shard, fields in entries:
        pipe.xadd(f"{PREFIX}{shard.stream}:{shard.number}", dict(zip(fields[::2], fields[1::2], strict=True)))
    pipe.execute()


def _compare(found: Found, redis_url: str, folder: LogFolder) -> None:
    rows: defaultdict[str, list[Row]] = defaultdict(list)
    with redis.Redis.from_url(redis_url) as store:
        for kind, row in _rows(store):
            rows[kind].append(row)
    said = [row["list_id"] for row in rows["exposures"]]
    found.acknowledged = set(said)
    lists, outcomes = logged.expected_of(rows)
    kept = [one for one in said if one in lists]
    files = Counter(folder.read_all("exposures", ["list_id"])["list_id"].to_list())
    found.lost = len(set(kept) - set(files))
    found.twice = sum((files - Counter(said)).values())
    found_lists, found_outcomes = logged.found(folder)
    found.outcomes = sum(outcomes.values())
    found.differ = len(lists ^ found_lists) + sum(((outcomes - found_outcomes) + (found_outcomes - outcomes)).values())
    found.unfinished = sum("done_" not in path for path in folder.paths("erased"))


def _rows(store: redis.Redis) -> Iterator[tuple[str, Row]]:
    for stream in STREAMS:
        for number in range(SHARDS):
            entries: Any = store.xrange(f"{PREFIX}{stream}:{number}")
            for _, fields in entries:
                yield entry_row(stream, {name.decode(): value for name, value in fields.items()})


if __name__ == "__main__":
    run_command(main)
