"""The load during a fault: lists and events alternate, and every answer is checked on arrival.

Requests are sent when they are due, whatever happened to earlier ones. A refused event is sent again, as a client
would, with its original id and time.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections import Counter, deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import uvloop

from loadtests.load.arrivals import Target
from loadtests.load.http_wire import Connection, encode
from loadtests.load.open_loop_driver import target
from service.recommend.request_plan import HISTORY_NOT_READ

RECOMMEND, EVENTS = "/recommend", "/events"
USERS = 40
K = 10
TIMEOUT_S = 10.0
_BEFORE = 5  # events of each user, before anything is asked


@dataclass(frozen=True, slots=True)
class Seen:
    """The outcome of one request.

    Attributes:
        path: Route.
        due: When it was due, of `time.perf_counter`.
        took_s: Seconds from then to the answer; None without an answer.
        status: HTTP status, or why no answer came ("refused", "cut off", "timeout", the name of an OSError).
        rung: Rung of a list.
        reason: Reason of a list.
    """

    path: str
    due: float
    took_s: float | None
    status: int | str
    rung: str | None = None
    reason: str | None = None

    @property
    def answered_at(self) -> float:
        """When the answer came."""
        return self.due + (self.took_s or 0.0)

    @property
    def whole(self) -> bool:
        """Whether it is a list at its best."""
        return self.path == RECOMMEND and self.status == 200 and self.rung == "full" and self.reason is None


@dataclass(frozen=True, slots=True)
class _Request:
    path: str
    user: str
    due: float
    body: bytes
    excluded: Collection[str] = ()
    event: dict[str, Any] | None = None


class Load:
    """Sends `rate` requests a second to the services at `urls` in turn, while the context is open.

    With `stamped`, each request says when it was due, as a proxy in front of the service would. A refused event, or one
    whose answer was lost, is sent again.

    Attributes:
        seen: The outcome of each request.
        acknowledged: User → event id → (item, when).
        wrong: Descriptions of lists that no fault excuses.
    """

    def __init__(
        self, urls: Sequence[str], items: Sequence[str], *, rate: float = 100.0, stamped: bool = False
    ) -> None:
        self._targets = [target(url) for url in urls]
        self._items, self._catalogue, self._rate = items, frozenset(items), rate
        self._stamped = stamped
        self._users = [f"chaos-{n}" for n in range(USERS)]
        self._again: deque[tuple[str, dict[str, Any]]] = deque()
        self._counts = Counter[str]()
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[tuple[int | str, bytes]]] = {}
        self._free: dict[Target, list[Connection]] = {to: [] for to in self._targets}
        self._tasks: set[asyncio.Task[None]] = set()
        self._end = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=lambda: uvloop.run(self._run()))
        self._first_ms = int(time.time() * 1000) - 3_600_000
        self.seen: list[Seen] = []
        self.acknowledged: dict[str, dict[str, tuple[str, float]]] = {user: {} for user in self._users}
        self.undone = 0
        self.wrong: list[str] = []

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def undo(self, since: float) -> int:
        """Forgets events acknowledged since then (`time.perf_counter`), for a fault that removes them, like a restore.

        They are neither expected nor missed from now on. Returns their number.
        """
        with self._lock:
            before = sum(map(len, self.acknowledged.values()))
            for user, events in self.acknowledged.items():
                self.acknowledged[user] = {name: one for name, one in events.items() if one[1] < since}
            gone = before - sum(map(len, self.acknowledged.values()))
            self.undone += gone
            return gone

    # -- sending

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        due = time.perf_counter()
        turns = [user for user in self._users for _ in range(_BEFORE)]
        for n in itertools.count():
            if self._end.is_set():
                break
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            if n < len(turns):
                request = self._event(turns[n], due)
            elif n % 2:
                request = self._list(self._users[n // 2 % USERS], due)
            else:
                request = self._event(self._users[n // 2 % USERS], due)
            task = self._loop.create_task(self._one(request, self._targets[n % len(self._targets)]))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            due += 1.0 / self._rate
        if self._tasks:
            await asyncio.wait(set(self._tasks))
        for connection in itertools.chain(*self._free.values()):
            connection.close()

    def _list(self, user: str, due: float) -> _Request:
        with self._lock:
            known = frozenset(item for item, _ in self.acknowledged[user].values())
        return _Request(RECOMMEND, user, due, orjson.dumps({"user_id": user, "k": K}), known)

    def _event(self, user: str, due: float) -> _Request:
        """The next event of the user, or one that was refused before."""
        if self._again:
            user, event = self._again.popleft()
        else:
            count = self._counts[user]
            self._counts[user] += 1
            place = (self._users.index(user) * 7919 + count * 31) % len(self._items)
            event = {"user_id": user, "item_id": self._items[place], "type": "click",
                     "timestamp": self._first_ms + count * 1000, "event_id": f"{user}-{count}"}  # fmt: skip
        return _Request(EVENTS, user, due, orjson.dumps({"events": [event]}), event=event)

    async def _one(self, request: _Request, to: Target) -> None:
        number = next(self._numbers)
        try:
            connection = await self._connection(to)
        except OSError:
            self._note(request, "refused", b"")
            return
        answer = self._waiting[number] = self._loop.create_future()
        connection.send(number, encode("POST", to.named, request.path, request.body, self._headers(request)))
        timer = self._loop.call_later(TIMEOUT_S, connection.give_up, "timeout")
        status, body = await answer
        timer.cancel()
        if connection.usable:
            self._free[to].append(connection)
        self._note(request, status, body)

    def _headers(self, request: _Request) -> dict[str, str]:
        if not self._stamped:
            return {}
        due_ms = (time.time() - (time.perf_counter() - request.due)) * 1000.0
        return {"X-Request-Start": f"{due_ms:.3f}"}

    async def _connection(self, to: Target) -> Connection:
        while free := self._free[to]:
            if (connection := free.pop()).usable:
                return connection
        _, connection = await self._loop.create_connection(lambda: Connection(self), to.host, to.port)
        return connection

    # -- what comes back

    def answered(self, connection: Connection, number: int, status: int, body: bytes) -> None:  # noqa: ARG002
        """Passes an answer on to its request."""
        self._waiting.pop(number).set_result((status, body))

    def failed(self, connection: Connection, number: int, kind: str) -> None:  # noqa: ARG002
        """Passes a failure on to its request."""
        self._waiting.pop(number).set_result((kind, b""))

    def _note(self, request: _Request, status: int | str, body: bytes) -> None:
        now = time.perf_counter()
        rung = reason = None
        if request.event is not None:
            self._note_event(request, status, now)
        elif status == 200:
            answer = orjson.loads(body)
            rung, reason = answer["rung"], answer["reason"]
            if (fault := wrong(answer, request.excluded, self._catalogue)) is not None:
                self.wrong.append(f"{request.user}: {fault} ({rung}, {reason})")
        took = now - request.due if isinstance(status, int) else None
        self.seen.append(Seen(request.path, request.due, took, status, rung, reason))

    def _note_event(self, request: _Request, status: int | str, now: float) -> None:
        event = request.event
        assert event is not None  # noqa: S101 - asked by the caller
        if status == 200:
            with self._lock:
                self.acknowledged[request.user][event["event_id"]] = (event["item_id"], now)
        else:
            self._again.append((request.user, event))


def wrong(answer: dict[str, Any], excluded: Collection[str], catalogue: Collection[str], k: int = K) -> str | None:
    """Says what is wrong with a list, whatever rung made it; None if nothing is.

    A list may contain seen items only if it warns that the history could not be read.
    """
    ids = [item["item_id"] for item in answer["items"]]
    if strange := [one for one in ids if one not in catalogue]:
        return f"{strange[0]} is not in the catalogue"
    if len(set(ids)) < len(ids):
        return "an item twice"
    if len(ids) < k and answer["reason"] is None:
        return f"{len(ids)} items of {k}, without a reason"
    if HISTORY_NOT_READ not in answer["warnings"] and (seen := [one for one in ids if one in excluded]):
        return f"{seen[0]} was seen by an event acknowledged before"
    return None
