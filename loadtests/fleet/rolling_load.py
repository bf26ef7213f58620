"""Lists and events through a proxy, at a steady rate, and what became of each; a thread with an event loop of its own.

The calls are those of the client for Python, with its retries. What counts as an error is counted below it, attempt by
attempt, so that a retry hides none. Every third batch of events is hedged: it is sent twice at the same time.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np

from loadtests.fleet.wire_transport import WireTransport
from loadtests.harness.served_process import REPOSITORY

if TYPE_CHECKING:
    from gpt4rec_client import AsyncClient, Event

K = 10
# Calls that may be under way; an arrival that finds so many is left out and counted, since it was never sent.
_AT_ONCE = 64
_EVENTS_SHARE = 0.4
_HEDGED = 3
_CALL_S = 20.0
_ERROR = 400


@dataclass(slots=True)
class Outcomes:
    """What became of the calls.

    Attributes:
        lists: Lists that arrived.
        batches: Batches of events that were acknowledged, hedged ones once for each answer.
        hedged: Batches that were sent twice.
        statuses: Answers that are errors, by status; attempts, not calls.
        broken: Attempts without an answer, by the kind of the failure.
        failed: Calls that failed after all attempts, or got a list of the client itself.
        rungs: Lists by the rung that answered.
        models: Lists by the version of the model.
        stale: Lists with an item whose event had been acknowledged before they were asked for.
        left_out: Arrivals that were never sent, since too many calls were under way.
        acknowledged: Ids of the acknowledged events by user.
    """

    lists: int = 0
    batches: int = 0
    hedged: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    broken: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    rungs: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)
    stale: int = 0
    left_out: int = 0
    acknowledged: dict[str, set[str]] = field(default_factory=dict)

    @property
    def errors(self) -> int:
        """Answers that are errors, connections that broke, and calls that failed without either."""
        attempts = self.statuses.total() + self.broken.total()
        return max(attempts, self.failed.total())


class CountingTransport(httpx.AsyncBaseTransport):
    """Counts the attempts that fail, and passes all of them on."""

    def __init__(self, outcomes: Outcomes) -> None:
        self._inner, self._outcomes = WireTransport(), outcomes

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Sends a request."""
        try:
            response = await self._inner.handle_async_request(request)
        except httpx.TransportError as error:
            self._outcomes.broken[f"{request.url.path} {type(error).__name__}"] += 1
            raise
        if response.status_code >= _ERROR:
            self._outcomes.statuses[f"{request.url.path} {response.status_code}"] += 1
        return response

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._inner.aclose()


class RollingLoad:
    """The load of one round.

    Args:
        url: Where the calls go.
        items: Item ids of the events.
        users: Ids of the users.
        rate: Calls a second.
        seed: Of all choices.
    """

    def __init__(self, url: str, items: Sequence[str], users: Sequence[str], rate: float, seed: int) -> None:
        self._url, self._items, self._users, self._rate = url, items, users, rate
        self._rng = np.random.default_rng(seed)
        self.outcomes = Outcomes(acknowledged={user: set() for user in users})
        self._seen: dict[str, set[str]] = {user: set() for user in users}
        self._running: set[asyncio.Task[None]] = set()

    async def run(self, ends: threading.Event) -> None:
        """Sends until the event is set, and then waits for the calls that are under way."""
        loop = asyncio.get_running_loop()
        async with _client(self._url, CountingTransport(self.outcomes)) as client:
            due = loop.time()
            while not ends.is_set():
                due += self._rng.exponential(1.0 / self._rate)
                await asyncio.sleep(max(0.0, due - loop.time()))
                if len(self._running) >= _AT_ONCE:
                    self.outcomes.left_out += 1
                    continue
                task = loop.create_task(self._arrival(client))
                self._running.add(task)
                task.add_done_callback(self._running.discard)
            await asyncio.gather(*self._running)

    async def _arrival(self, client: AsyncClient) -> None:
        user = self._users[int(self._rng.integers(len(self._users)))]
        if self._rng.random() < _EVENTS_SHARE:
            await self._events(client, user)
        else:
            await self._list(client, user)

    async def _list(self, client: AsyncClient, user: str) -> None:
        from gpt4rec_client import ClientError

        seen = set(self._seen[user])
        try:
            answer = await client.recommend(user_id=user, k=K)
        except ClientError as error:
            self.outcomes.failed[f"/recommend {type(error).__name__}"] += 1
            return
        if answer.local:
            self.outcomes.failed[f"/recommend {answer.reason}"] += 1
            return
        self.outcomes.lists += 1
        self.outcomes.rungs[str(answer.rung)] += 1
        self.outcomes.models[str(answer.model_version)] += 1
        self.outcomes.stale += any(item.item_id in seen for item in answer.items)

    async def _events(self, client: AsyncClient, user: str) -> None:
        from gpt4rec_client import Event

        chosen = self._rng.choice(len(self._items), 1 + int(self._rng.integers(3)), replace=False).tolist()
        batch = [Event(type="click", item_id=self._items[item], user_id=user) for item in chosen]
        sent = [self._send(client, user, batch)]
        if self._rng.integers(_HEDGED) == 0:
            self.outcomes.hedged += 1
            sent.append(self._send(client, user, batch))
        await asyncio.gather(*sent)

    async def _send(self, client: AsyncClient, user: str, batch: Sequence[Event]) -> None:
        from gpt4rec_client import ClientError

        try:
            await client.send(batch)
        except ClientError as error:
            self.outcomes.failed[f"/events {type(error).__name__}"] += 1
            return
        self.outcomes.batches += 1
        self.outcomes.acknowledged[user].update(event.event_id for event in batch)
        self._seen[user].update(str(event.item_id) for event in batch)


@contextmanager
def rolling_load(load: RollingLoad) -> Iterator[Outcomes]:
    """Runs a load until the body ends. What the load itself raises is raised then."""
    ends, raised = threading.Event(), list[BaseException]()

    def work() -> None:
        try:
            asyncio.run(load.run(ends))
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=work, name="rolling-load", daemon=True)
    thread.start()
    try:
        yield load.outcomes
    finally:
        ends.set()
        thread.join()
    if raised:
        raise raised[0]


def _client(url: str, transport: httpx.AsyncBaseTransport) -> AsyncClient:
    """Returns the client for Python, which is a distribution of its own."""
    path = str(REPOSITORY / "deploy" / "clients" / "python")
    if path not in sys.path:
        sys.path.append(path)
    from gpt4rec_client import AsyncClient

    more: dict[str, Any] = {"timeout_s": _CALL_S, "kept_lists": 0, "budget_ms": None}
    return AsyncClient(url, transport=transport, **more)
