"""One fail-over under load: servers, a service, the happening, and what became of every acknowledged event.

Lists and events alternate. After it, every event that was acknowledged is looked up, and each that is missing is held
against the promise of the row: how long before, and how long after the happening began, an event may have been
acknowledged to be lost.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx

from loadtests.chaos.load import EVENTS, RECOMMEND, USERS, Load, Seen
from loadtests.chaos.scene import stored_history
from loadtests.harness import served_process
from loadtests.harness.places import Cable, two_sides
from loadtests.harness.redis_cluster import RedisCluster
from loadtests.harness.redis_programs import Program
from loadtests.harness.sentinel import SentinelGroup
from service.artifact.artifact import Artifact

BUDGET_MS = 80.0
LATE_MS = 50.0
HEALTHY_S, AFTER_S, WITHIN_S = 2.0, 2.0, 90.0
TOKEN = {"Authorization": "Bearer fleet-token"}
# No acknowledged event may be trimmed before it is looked up.
SETTINGS = {"GPT4REC_OPS_TOKENS": "fleet:fleet-token", "GPT4REC_HISTORY_CAP": "100000"}
# So many lists with histories in a row show that they can be read again.
_WELL = 20


class RowError(RuntimeError):
    """The happening could not be tried, or what it waits for did not come."""


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        kind: `cluster` or `sentinel`.
        happening: Short name of what happens.
        text: What is done.
        durability: `GPT4REC_REDIS_DURABILITY`.
        promise: What is promised of acknowledged events, and of lists.
        act: Does it, and returns when the servers are well again.
        may_lose: Seconds before and after the beginning of the happening: an event acknowledged in between may be
            lost. None: no event may be lost.
        replicas: Replicas of each primary, all of which must acknowledge with durability `replica`.
        cut: The place of each server, if the network is cut: `near`, where the service is, or `far`. Of Sentinel, the
            places of the Sentinels follow.
        options: Of the servers.
    """

    kind: str
    happening: str
    text: str
    durability: str
    promise: str
    act: Callable[[World], None]
    may_lose: tuple[float, float] | None = None
    replicas: int = 1
    cut: tuple[str, ...] = ()
    options: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the row."""
        return f"{self.kind}, {self.happening}, {self.durability}"


@dataclass
class World:
    """What a happening acts on.

    Attributes:
        row: The row.
        redis: The servers.
        cable: The cable between both sides; None where nothing is cut.
        quick: Whether times are short.
        load: The load, while there is one.
        notes: What is worth telling.
        began: When the happening began, of `time.perf_counter`.
    """

    row: Row
    redis: RedisCluster | SentinelGroup
    cable: Cable | None = None
    quick: bool = False
    load: Load | None = None
    notes: list[str] = field(default_factory=list)
    began: float = 0.0

    @property
    def cluster(self) -> RedisCluster:
        """The servers, of a cluster."""
        assert isinstance(self.redis, RedisCluster)  # noqa: S101 - the row says so
        return self.redis

    @property
    def group(self) -> SentinelGroup:
        """The servers, of Sentinel."""
        assert isinstance(self.redis, SentinelGroup)  # noqa: S101 - the row says so
        return self.redis

    def begin(self) -> float:
        """Marks the beginning of the happening; what was acknowledged from now on may be lost for other reasons."""
        self.began = time.perf_counter()
        return self.began

    def until(self, condition: Callable[[], bool], what: str, within_s: float = WITHIN_S) -> float:
        """Waits for something; returns the seconds since the happening began.

        Raises:
            RowError: It does not come.
        """
        until = time.monotonic() + within_s
        while not condition():
            if time.monotonic() > until:
                raise RowError(f"this did not happen within {within_s:g} s: {what}")
            time.sleep(0.05)
        return time.perf_counter() - self.began

    def hold(self, seconds: float) -> None:
        """Lets the load go on for a while; a quarter of it on a quick run."""
        assert self.load is not None  # noqa: S101 - there is load
        since, seconds = time.perf_counter(), seconds / 4 if self.quick else seconds
        self.until(lambda: time.perf_counter() - since >= seconds, "time passes", seconds + 10.0)


def tried(
    row: Row, artifact: Path, folder: Path, *, program: Program | None = None, quick: bool = False
) -> dict[str, Any]:
    """Tries a row on servers of its own; returns its entry.

    Raises:
        RowError: The happening could not be tried.
        OSError: A server could not be started.
        NotReadyError: The service could not be started.
    """
    with ExitStack() as stack:
        cable = stack.enter_context(two_sides()) if row.cut else None
        world = World(row, stack.enter_context(_servers(row, folder, cable, program)), cable, quick)
        service = stack.enter_context(
            served_process.serve(
                artifact, "--redis", world.redis.url, GPT4REC_REDIS_DURABILITY=row.durability,
                GPT4REC_REDIS_REPLICAS=str(row.replicas), **SETTINGS,
            )
        )  # fmt: skip
        items = list(Artifact.open(artifact).catalogue.item_ids)
        with Load([service.url], items) as load:
            world.load = load
            world.until(lambda: accepted(load, 0.0) and read(load, 0.0), "the service is well before it")
            world.hold(HEALTHY_S)
            world.begin()
            row.act(world)
            ended = time.perf_counter()
            world.until(lambda: accepted(load, ended), "events are accepted again")
            world.until(lambda: read(load, ended), "lists use histories again")
            world.hold(AFTER_S)
        missing, twice = missing_events(service.url, load)
        return _entry(row, world, load, missing, twice)


@contextmanager
def _servers(
    row: Row, folder: Path, cable: Cable | None, program: Program | None
) -> Iterator[RedisCluster | SentinelGroup]:
    places = [] if cable is None else [cable.near if one == "near" else cable.far for one in row.cut]
    given: dict[str, Any] = {"replicas": row.replicas, "program": program, "places": places, **row.options}
    if row.kind == "cluster":
        with RedisCluster(folder, **given) as cluster:
            yield cluster
    else:
        with SentinelGroup(folder, sentinels=3, down_after_ms=1000, **given) as group:
            yield group


def accepted(load: Load, since: float) -> bool:
    """Returns whether the latest event of every user was acknowledged."""
    row = [one.status for one in load.seen[:] if one.path == EVENTS and one.due >= since][-USERS:]
    return row == [HTTPStatus.OK] * USERS


def read(load: Load, since: float) -> bool:
    """Returns whether the latest lists were made with histories."""
    row = [one for one in load.seen[:] if one.path == RECOMMEND and one.due >= since][-_WELL:]
    return len(row) == _WELL and all(one.status == HTTPStatus.OK and one.reason != "state_unavailable" for one in row)


def missing_events(url: str, load: Load) -> tuple[list[tuple[str, str, float]], int]:
    """Returns the acknowledged events that are in no history, with when they were; and how many are there twice."""
    missing, twice = [], 0
    with httpx.Client(base_url=url, headers=TOKEN, timeout=30.0) as client:
        for user, events in load.acknowledged.items():
            stored = Counter(one["event_id"] for one in stored_history(client, user, RowError, WITHIN_S))
            missing += [(user, name, when) for name, (_, when) in events.items() if name not in stored]
            twice += sum(count > 1 for count in stored.values())
    return missing, twice


def beyond(row: Row, began: float, when: Sequence[float]) -> int:
    """Returns how many of the events that were acknowledged at these times the promise does not allow to be lost."""
    if row.may_lose is None:
        return len(when)
    before, after = row.may_lose
    return sum(not began - before <= one <= began + after for one in when)


def _entry(row: Row, world: World, load: Load, missing: Sequence[tuple[str, str, float]], twice: int) -> dict[str, Any]:
    lists = [one for one in load.seen if one.path == RECOMMEND]
    events = [one for one in load.seen if one.path == EVENTS]
    times = [when for _, _, when in missing]
    late = sum(one.took_s * 1e3 > BUDGET_MS + LATE_MS for one in lists if one.took_s is not None)
    return {
        "kind": row.kind, "happening": row.happening, "text": row.text, "durability": row.durability,
        "promise": row.promise, "events": sum(map(len, load.acknowledged.values())),
        "refused": sum(one.status == HTTPStatus.SERVICE_UNAVAILABLE for one in events),
        "refused_s": _refused_s(events), "lost": len(missing), "beyond": beyond(row, world.began, times),
        "lost_from_s": round(min(times) - world.began, 3) if times else None,
        "lost_to_s": round(max(times) - world.began, 3) if times else None, "twice": twice,
        "lists": len(lists), "without_history": sum(one.reason == "state_unavailable" for one in lists),
        "5xx": sum(isinstance(one.status, int) and one.status >= HTTPStatus.INTERNAL_SERVER_ERROR for one in lists),
        "unanswered": sum(not isinstance(one.status, int) for one in lists), "wrong": len(load.wrong),
        "late": late, "late_percent": round(100.0 * late / max(1, len(lists)), 3), "notes": world.notes,
    }  # fmt: skip


def _refused_s(events: Sequence[Seen]) -> float:
    """Seconds from the first refused event to the last."""
    refused = [one.due for one in events if one.status != HTTPStatus.OK]
    return round(max(refused) - min(refused), 1) if refused else 0.0
