"""One rolling restart or release under load, and what it lost; the journal of those that are done."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import redis

from loadtests.fleet.proxies import Proxy
from loadtests.fleet.replicas import Release, Replica, wait_for
from loadtests.fleet.rolling_load import Outcomes, RollingLoad, rolling_load
from service.common.atomic_files import write_aside
from service.store.records import Subject, parse_events
from service.store.store_settings import StoreSettings

USERS = 40


@dataclass(frozen=True, slots=True)
class Round:
    """What one rolling change came to.

    Attributes:
        kind: `restarts`, or `releases`.
        proxy: The proxy in front.
        number: Of the round, from 0.
        to: What all replicas run afterwards.
        lists: Lists that arrived.
        batches: Batches of events that were acknowledged.
        hedged: Batches that were sent twice at the same time.
        events: Different events that were acknowledged.
        errors: Answers that are errors and connections that broke, each attempt for itself.
        missing: Acknowledged events that are in no history.
        doubled: Events that are in a history more than once.
        killed: Replicas that did not end by themselves.
        stale: Lists with an item whose event had been acknowledged before.
        left_out: Arrivals that were never sent.
        kinds: The errors by their kind.
        rungs: Lists by the rung that answered.
        models: Lists by the version of the model.
    """

    kind: str
    proxy: str
    number: int
    to: str
    lists: int
    batches: int
    hedged: int
    events: int
    errors: int
    missing: int
    doubled: int
    killed: int
    stale: int
    left_out: int
    kinds: Mapping[str, int]
    rungs: Mapping[str, int]
    models: Mapping[str, int]

    @property
    def lost(self) -> int:
        """What the criterion counts: errors, broken connections, missing and doubled events."""
        return self.errors + self.missing + self.doubled


@dataclass(frozen=True, slots=True)
class Fleet:
    """The parts of a round that stay for the next one.

    Attributes:
        proxy: In front.
        replicas: Behind it.
        redis_url: Of the one Redis.
        items: Item ids of the events.
        rate: Calls a second.
    """

    proxy: Proxy
    replicas: Sequence[Replica]
    redis_url: str
    items: Sequence[str]
    rate: float


def roll(fleet: Fleet, kind: str, number: int, release: Release) -> Round:
    """Replaces one replica after the other under load, and counts.

    Args:
        fleet: What runs.
        kind: `restarts`, or `releases`.
        number: Of the round.
        release: What every replica runs afterwards.

    Raises:
        NotReadyError: A replica does not come back; the round counts for nothing.
    """
    users = [f"{kind}-{fleet.proxy.name}-{number}-{user}" for user in range(USERS)]
    killed = sum(replica.killed for replica in fleet.replicas)
    with rolling_load(RollingLoad(fleet.proxy.url, fleet.items, users, fleet.rate, number)) as outcomes:
        for place, replica in enumerate(fleet.replicas):
            replica.stop()
            replica.start(release)
            wait_for(replica.ready, f"replica {replica.url} is not ready")
            wait_for(lambda place=place: fleet.proxy.sends_to(place), f"{fleet.proxy.name} does not take it back")  # type: ignore[misc]
    missing, doubled = compared(fleet.redis_url, outcomes.acknowledged)
    return Round(
        kind=kind, proxy=fleet.proxy.name, number=number, to=release.name, lists=outcomes.lists,
        batches=outcomes.batches, hedged=outcomes.hedged,
        events=sum(len(ids) for ids in outcomes.acknowledged.values()), errors=outcomes.errors, missing=missing,
        doubled=doubled, killed=sum(replica.killed for replica in fleet.replicas) - killed, stale=outcomes.stale,
        left_out=outcomes.left_out, kinds=_kinds(outcomes), rungs=dict(outcomes.rungs), models=dict(outcomes.models),
    )  # fmt: skip


def compared(redis_url: str, acknowledged: Mapping[str, set[str]]) -> tuple[int, int]:
    """Compares the histories in Redis with what was acknowledged.

    Args:
        redis_url: Of the Redis.
        acknowledged: Ids of the events by user.

    Returns:
        How many acknowledged events are in no history, and how many stored ones are there more than once.
    """
    missing = doubled = 0
    prefix = StoreSettings(url=redis_url).prefix
    with redis.Redis.from_url(redis_url) as client:
        for user, ids in acknowledged.items():
            flat: list[Any] = []
            for member, score in client.zrange(f"{prefix}{Subject('user', user).tag}:events", 0, -1, withscores=True):
                flat += (member, repr(score).encode())
            stored = Counter(event.event_id for event in parse_events(flat))
            missing += len(ids - stored.keys())
            doubled += stored.total() - len(stored)
    return missing, doubled


def _kinds(outcomes: Outcomes) -> dict[str, int]:
    return dict(outcomes.statuses + outcomes.broken + outcomes.failed)


class Journal:
    """The rounds that are done, in a file, so that an interrupted command goes on.

    Args:
        file: The file; it need not exist.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        names = {field.name for field in fields(Round)}
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        read = [json.loads(line) for line in lines]
        self.rounds = [Round(**one) for one in read if one.keys() == names]

    def of(self, kind: str, proxy: str) -> list[Round]:
        """Returns the rounds of one kind behind one proxy, in order."""
        found = [one for one in self.rounds if (one.kind, one.proxy) == (kind, proxy)]
        return sorted(found, key=lambda one: one.number)

    def add(self, done: Round) -> None:
        """Adds a round."""
        self.rounds.append(done)
        text = "".join(f"{json.dumps(asdict(one), sort_keys=True)}\n" for one in self.rounds)
        self._file.parent.mkdir(parents=True, exist_ok=True)
        write_aside(self._file, text.encode())


def summed(rounds: Iterable[Round]) -> dict[str, Any]:
    """Returns the sums over rounds: numbers by name, and the errors, rungs and models by kind."""
    sums: Counter[str] = Counter()
    by_kind: dict[str, Counter[str]] = {name: Counter() for name in ("kinds", "rungs", "models")}
    for one in rounds:
        given = asdict(one)
        sums["rounds"] += 1
        for name, value in given.items():
            if name in by_kind:
                by_kind[name].update(value)
            elif isinstance(value, int) and name != "number":
                sums[name] += value
    return {**sums, **{name: dict(found) for name, found in by_kind.items()}}
