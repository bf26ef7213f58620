"""Replays real sessions: /events and /recommend interleaved as in a data set, at a chosen rate.

The log (a folder of `gpt4rec data`) is cut for each user: the earlier part of a history is loaded first, the later part
is replayed. Sessions (`session_id`, or 30 minutes without an event) start in the order of the log, and a number of them
is active at once: at every arrival, one of these, drawn at random, takes its next step. A session opens with a
/recommend and goes on with one /events for each event, followed by `recommends` /recommend on average. The order within
a session is that of the log, and its pace is compressed: at 500 requests a second with 200 sessions, a user acts every
0.4 s.

All times are shifted by one constant, so that the log ends when the replay begins: gaps within a history stay as they
were. When the log is used up, its users return under other names (`<user>~2` …), with their earlier histories loaded
first.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson

from loadtests.load.open_loop_driver import Arrival, LoadError, closed_now, poisson
from service.artifact.array_types import IntArray

RECOMMEND, EVENTS = "/recommend", "/events"
BEAM = {"strategy": "beam", "beam_width": 5}
SESSION_GAP_MS = 30 * 60_000
BATCH = 500
_PATIENCE_MS = 2_000
_ATTEMPTS, _PAUSE_S = 5, 0.2


@dataclass(frozen=True, slots=True)
class User:
    """One history, oldest event first; `begins` are the positions at which sessions begin."""

    name: str
    item: Sequence[str]
    type: Sequence[str]
    time_ms: IntArray
    begins: Sequence[int]


def read(folder: Path) -> list[User]:
    """Reads the users of a data set folder.

    A log without times gets one minute between events, and sessions of ten events.

    Raises:
        LoadError: If the folder is not a data set.
    """
    import polars as pl

    try:
        events = pl.read_parquet(folder / "events.parquet")
    except (OSError, pl.exceptions.PolarsError) as error:
        raise LoadError(f"{folder} is not a data set folder: {error}") from error
    events = events.filter(pl.col("item_id").is_not_null())
    users = []
    for (name,), rows in events.group_by("user_id", maintain_order=True):
        timed = rows["timestamp"].null_count() == 0
        times = rows["timestamp"].to_numpy() if timed else np.arange(len(rows), dtype=np.int64) * 60_000
        sessions = rows["session_id"].to_list() if rows["session_id"].null_count() == 0 else None
        users.append(
            User(str(name), rows["item_id"].to_list(), rows["event_type"].to_list(), times.astype(np.int64),
                 _begins(times, sessions, timed))
        )  # fmt: skip
    return users


def _begins(times: IntArray, sessions: Sequence[str] | None, timed: bool) -> list[int]:
    if sessions is not None:
        return [0, *(n for n in range(1, len(sessions)) if sessions[n] != sessions[n - 1])]
    if not timed:
        return list(range(0, len(times), 10))
    return [0, *(np.flatnonzero(np.diff(times) > SESSION_GAP_MS) + 1).tolist()]


class _Session(NamedTuple):
    """Steps (path, body) of one session, which begins at position `start` of its user's events."""

    user: User
    round: int
    start: int
    steps: list[tuple[str, bytes]]


@dataclass
class Replay:
    """An endless stream of requests over a log; the same seed gives the same stream.

    Attributes:
        users: Histories to replay.
        seed: Seed of all random choices.
        earlier: Share of every history that is loaded first.
        longest: At most so many of these events are loaded.
        recommends: /recommend requests after each event, on average.
        active: Concurrent sessions.
        k: Items of a list.
        decoding: Decoding of each /recommend; None leaves it to the policies.
        now_ms: Time at which the shifted log ends, epoch milliseconds.
        prefix: Put before each user's name.
    """

    users: Sequence[User]
    seed: int = 0
    earlier: float = 0.8
    longest: int = 200
    recommends: float = 1.0
    active: int = 200
    k: int = 10
    decoding: Mapping[str, Any] | None = field(default_factory=lambda: dict(BEAM))
    now_ms: int = field(default_factory=lambda: int(time.time() * 1000))
    prefix: str = ""
    _round: int = 0
    _waiting: deque[_Session] = field(default_factory=deque)
    _running: list[deque[tuple[str, bytes]]] = field(default_factory=list)
    _left: int = 0

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.seed)
        last = max((int(user.time_ms[-1]) for user in self.users if len(user.time_ms)), default=0)
        self._shift = self.now_ms - last - 1000

    def prepare(self, url: str, steps: int, *, each: Any = None, **options: Any) -> int:
        """Loads earlier histories until at least `steps` requests can be replayed.

        Every loaded user gets one /recommend, so that no state is left to compute.

        Returns:
            How many users were loaded.

        Raises:
            LoadError: If the service does not accept them.
        """
        loaded = 0
        while self._left < steps:
            names = self._more()
            self._load(url, self._earlier(), each, options)
            asked = [Arrival(0.0, RECOMMEND, self._recommend(name, budget_ms=_PATIENCE_MS)) for name in names]
            send_beforehand(url, asked, **options)
            loaded += len(names)
            self._round += 1
        return loaded

    def arrivals(self, rate: float, seconds: float, seed: int) -> list[Arrival]:
        """Returns the next requests of the stream as Poisson arrivals.

        Raises:
            LoadError: If too few were prepared.
        """
        dues = poisson(np.random.default_rng(seed), rate, seconds).tolist()
        if len(dues) > self._left:
            raise LoadError(f"{len(dues)} requests are due, but only {self._left} were prepared")
        return [Arrival(due, *self._step()) for due in dues]

    def take(self, count: int) -> list[Arrival]:
        """Returns the next `count` requests of the stream, due immediately.

        Raises:
            LoadError: If too few were prepared.
        """
        if count > self._left:
            raise LoadError(f"{count} requests were asked for, but only {self._left} were prepared")
        return [Arrival(0.0, *self._step()) for _ in range(count)]

    def session(self) -> tuple[list[bytes], list[tuple[str, bytes]]]:
        """Returns the next whole session, for a driver that runs one user at a time.

        At the end of the log its users return.

        Returns:
            Bodies of /events that load the earlier events of the user, and the steps (path, body) of the session.
        """
        if not self._waiting:
            self._more()
            self._round += 1
        user, number, start, steps = self._waiting.popleft()
        self._left -= len(steps)
        name = self._named(user, number)
        earlier = [self._event(user, name, n) for n in range(max(0, start - self.longest), start)]
        return [orjson.dumps({"events": part}) for part in (earlier[:BATCH], earlier[BATCH:]) if part], steps

    def names(self) -> list[str]:
        """Returns the users of the rounds so far."""
        return [self._named(user, number) for number in range(self._round) for user in self.users]

    # -- the stream

    def _step(self) -> tuple[str, bytes]:
        while len(self._running) < self.active and self._waiting:
            self._running.append(deque(self._waiting.popleft().steps))
        place = int(self._rng.integers(len(self._running)))
        session = self._running[place]
        step = session.popleft()
        self._left -= 1
        if not session:
            self._running[place] = self._running[-1]
            self._running.pop()
        return step

    def _more(self) -> list[str]:
        """Queues the sessions of one round over the log, in the order in which they began."""
        began: list[tuple[int, _Session]] = []
        for user in self.users:
            first = self._cut(user)
            borders = [first, *(b for b in user.begins if b > first), len(user.item)]
            name = self._named(user, self._round)
            for start, end in pairwise(borders):
                if end > start:
                    steps = list(self._session(user, name, start, end))
                    began.append((int(user.time_ms[start]), _Session(user, self._round, start, steps)))
        began.sort(key=lambda one: one[0])
        for _, session in began:
            self._waiting.append(session)
            self._left += len(session.steps)
        return [self._named(user, self._round) for user in self.users]

    def _session(self, user: User, name: str, start: int, end: int) -> Iterator[tuple[str, bytes]]:
        ask = self._recommend(name)
        yield RECOMMEND, ask
        for n in range(start, end):
            yield EVENTS, orjson.dumps({"events": [self._event(user, name, n)]})
            for _ in range(int(self.recommends + self._rng.random())):
                yield RECOMMEND, ask

    def _earlier(self) -> Iterator[dict[str, Any]]:
        for user in self.users:
            name, cut = self._named(user, self._round), self._cut(user)
            for n in range(max(0, cut - self.longest), cut):
                yield self._event(user, name, n)

    def _load(self, url: str, events: Iterator[dict[str, Any]], each: Any, options: Mapping[str, Any]) -> None:
        batch: list[dict[str, Any]] = []
        bodies: list[Arrival] = []
        for event in events:
            batch.append(event)
            if len(batch) == BATCH:
                bodies.append(Arrival(0.0, EVENTS, orjson.dumps({"events": batch})))
                batch = []
        if batch:
            bodies.append(Arrival(0.0, EVENTS, orjson.dumps({"events": batch})))
        for start in range(0, len(bodies), 16):
            send_beforehand(url, bodies[start : start + 16], **options)
            if each is not None:
                each(min(len(bodies), start + 16) / len(bodies))

    def _cut(self, user: User) -> int:
        return int(len(user.item) * self.earlier)

    def _named(self, user: User, number: int) -> str:
        return f"{self.prefix}{user.name}" + (f"~{number + 1}" if number else "")

    def _event(self, user: User, name: str, n: int) -> dict[str, Any]:
        when = int(user.time_ms[n]) + self._shift
        return {"user_id": name, "item_id": user.item[n], "type": user.type[n], "timestamp": when}

    def _recommend(self, name: str, **more: Any) -> bytes:
        body = {"user_id": name, "k": self.k, **({"decoding": self.decoding} if self.decoding else {}), **more}
        return orjson.dumps(body)


def send_beforehand(url: str, requests: Sequence[Arrival], **options: Any) -> list[bytes]:
    """Sends requests that a run needs beforehand, two at a time, and returns the bodies of the answers, in no order.

    If some fail, all are sent again, a few times: events are idempotent.

    Raises:
        LoadError: If the service still does not accept them.
    """
    for attempt in range(_ATTEMPTS):
        bodies: list[bytes] = []
        report = closed_now(url, requests, concurrency=2, timeout_s=30.0, keep=bodies.append, **options)
        if not report.errors:
            return bodies
        # A store that lags behind needs a pause, not more requests.
        time.sleep(_PAUSE_S * 2**attempt)
    raise LoadError(f"the service did not accept the requests that the run needs beforehand: {report.errors}")
