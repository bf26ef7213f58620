"""The client for asyncio: each call is awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import httpx

from gpt4rec_client import questions
from gpt4rec_client.answers import Erased, EventsAnswer, Recommendation, Related
from gpt4rec_client.attempts import Attempts
from gpt4rec_client.errors import ClientError, TimedOut, Unreachable
from gpt4rec_client.events import Event
from gpt4rec_client.fallback import Fallback
from gpt4rec_client.items import AsyncItems
from gpt4rec_client.options import Options, address, complete, outbox
from gpt4rec_client.questions import Call, Feature, Question

T = TypeVar("T")


class AsyncClient:
    """A client for one event loop. Close it, or use it in an `async with` statement: that sends the events that wait.

    Attributes:
        items: The catalogue, for backends.

    Args:
        base_url: Address of the service.
        transport: Takes the place of the network, in tests.
        options: See `Options`.

    Raises:
        ClientError: Every call may raise it; see `gpt4rec_client.errors`.
    """

    def __init__(
        self, base_url: str, *, transport: httpx.AsyncBaseTransport | None = None, **options: Unpack[Options]
    ) -> None:
        self._options = found = complete(options)
        self._http = httpx.AsyncClient(base_url=address(base_url, found), transport=transport)
        self._fallback = Fallback(found["fallback"], found["kept_lists"])
        self.items = AsyncItems(self._do)
        self._outbox = outbox(found)
        self._changed = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._hurrying, self._closed = 0, False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # -- lists

    async def recommend(self, **question: Unpack[Question]) -> Recommendation:
        """Returns a list. If the service cannot be asked, it is a local one (`local` is true, `reason` says why).

        Args:
            question: See `Question`.

        Raises:
            ClientError: The question is wrong, or there is no local list either.
        """
        return await self._asked(questions.body_of(question, self._options["budget_ms"]), "/recommend")

    async def next_page(self, before: Recommendation, **question: Unpack[Question]) -> Recommendation | None:
        """Returns the next items of a list that was asked for with `page`; None where it ends. Never a local list.

        Args:
            before: The page before.
            question: `k` (10 without), and `exclude` or `filter` to narrow the list further.

        Raises:
            Gone: The list has expired, or its user was erased.
        """
        if before.cursor is None:
            return None
        body = questions.next_page(before, question, self._options["budget_ms"])
        return await self._do(questions.recommend(body))

    async def recommend_batch(
        self, asked: Sequence[Question], budget_ms: float | None = None
    ) -> list[Recommendation | ClientError]:
        """Returns up to 100 lists, in order, each as `recommend` does; an error in place of a list that there is not.

        Args:
            asked: The questions.
            budget_ms: Time budget of the whole batch in the service.
        """
        bodies = [questions.body_of(question, None) for question in asked]
        try:
            found = await self._do(questions.recommend_batch(bodies, budget_ms or self._options["budget_ms"]))
        except ClientError as error:
            found = [error] * len(bodies)
        return [self._fallback.settled(body, answer) for body, answer in zip(bodies, found, strict=True)]

    async def recommend_for_basket(self, items: Sequence[str], **question: Unpack[Question]) -> Recommendation:
        """Returns what goes with the items of a basket, for a user, a session or nobody. Else as `recommend`.

        Args:
            items: What is in the basket, oldest first, at most 100.
            question: `user_id`, `session_id`, `k`, `scene`, `context`, `filter`, `exclude`, `exclude_seen`, `features`,
                `fields`, `explain` and `budget_ms`.
        """
        body = questions.basket_of(items, question, self._options["budget_ms"])
        return await self._asked(body, "/baskets/recommend")

    async def similar(self, item_id: str, k: int = 10, fields: Sequence[str] = ()) -> Related:
        """Returns the items most like an item: what a product page shows."""
        return await self._do(questions.beside(item_id, "similar", k, fields))

    async def together(self, item_id: str, k: int = 10, fields: Sequence[str] = ()) -> Related:
        """Returns the items that are most often in one basket with an item."""
        return await self._do(questions.beside(item_id, "together", k, fields))

    # -- events

    def track(self, event: Event) -> bool:
        """Queues an event and returns at once. It is sent with others, and again until the service accepts it.

        Returns:
            False if the queue is full; `on_drop` was told.

        Raises:
            RuntimeError: The client is closed.
        """
        if self._closed:
            raise RuntimeError("the client is closed")
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._send_what_waits())
        added = self._outbox.add(event)
        self._wake.set()
        return added

    async def flush(self, within_s: float = 5.0) -> int:
        """Sends what waits; returns how many events are left after `within_s` seconds."""
        self._hurrying += 1
        self._wake.set()
        try:
            async with asyncio.timeout(within_s), self._changed:
                await self._changed.wait_for(lambda: not len(self._outbox))
        except TimeoutError:
            pass
        finally:
            self._hurrying -= 1
        return len(self._outbox)

    async def send(self, events: Sequence[Event]) -> EventsAnswer:
        """Stores events now: they are written when this returns. At most 1,000."""
        return await self._do(questions.send(events))

    # -- who it is

    async def merge(self, session_id: str, user_id: str) -> int:
        """Gives the history of an anonymous session to the user who logged in.

        What waits of the session is sent before; what cannot be sent now will be sent as the user's.

        Returns:
            The number of events that were new to the user.
        """
        await self.flush(self._options["timeout_s"])
        self._outbox.belongs(session_id, user_id)
        moved = await self._do(questions.merge(session_id, user_id))
        self._fallback.forget(session_id=session_id, user_id=user_id)
        return moved

    async def user(self, user_id: str) -> dict[str, Any]:
        """Returns everything that is stored about a user. The key needs the right `users`."""
        return await self._do(questions.show_user(user_id))

    async def erase(self, user_id: str) -> Erased:
        """Deletes everything about a user, events that wait and last lists too. The key needs the right `users`."""
        if self._outbox.forget(user_id):
            await self.flush(self._options["timeout_s"])
        self._fallback.forget(user_id=user_id)
        return await self._do(questions.erase(user_id))

    async def put_user_features(self, user_id: str, features: Mapping[str, Feature]) -> dict[str, Any]:
        """Stores the features of a user in place of those before. The key needs the right `users`."""
        return await self._do(questions.put_features("user", user_id, features))

    async def put_session_features(self, session_id: str, features: Mapping[str, Feature]) -> dict[str, Any]:
        """Stores the features of an anonymous session in place of those before. The key needs the right `users`."""
        return await self._do(questions.put_features("session", session_id, features))

    # -- the end

    async def close(self) -> int:
        """Sends what waits, for `close_timeout_s` seconds; returns how many events had to be dropped."""
        if len(self._outbox):
            await self.flush(self._options["close_timeout_s"])
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        dropped = self._outbox.abandon()
        await self._http.aclose()
        return dropped

    async def _send_what_waits(self) -> None:
        while True:
            self._wake.clear()
            due_in = self._outbox.due_in(now=self._hurrying > 0)
            if due_in != 0.0:
                await _either(self._wake, due_in)
                continue
            try:
                await self.send(self._outbox.take())
            except ClientError as error:
                self._outbox.refused(error)
            else:
                self._outbox.accepted()
            async with self._changed:
                self._changed.notify_all()

    async def _asked(self, body: dict[str, Any], path: str) -> Recommendation:
        try:
            answer = await self._do(questions.recommend(body, path))
        except ClientError as error:
            return self._fallback.instead(body, error)
        self._fallback.keep(body, answer)
        return answer

    async def _do(self, call: Call[T]) -> T:
        attempts = Attempts(self._options["timeout_s"], self._options["retries"])
        while True:
            try:
                return await self._attempt(call, attempts)
            except ClientError as error:
                await asyncio.sleep(attempts.pause_s(error))

    async def _attempt(self, call: Call[T], attempts: Attempts) -> T:
        left = attempts.remaining_s()
        headers = questions.headers(self._options["api_key"], start=self._options["send_start"])
        try:
            async with asyncio.timeout(left):
                response = await self._http.request(
                    call.method, call.path, content=call.content(left), params=call.query, headers=headers, timeout=None
                )
        except TimeoutError as error:
            raise TimedOut(f"{call.method} {call.path}: no answer in time") from error
        except (httpx.RequestError, RuntimeError) as error:  # RuntimeError: the client was closed meanwhile
            raise Unreachable(f"{call.method} {call.path}: {error}") from error
        return call.answer(response.status_code, response.content, response.headers.get("retry-after"))


async def _either(wake: asyncio.Event, seconds: float | None) -> None:
    """Waits for an event, at most for some seconds."""
    try:
        async with asyncio.timeout(seconds):
            await wake.wait()
    except TimeoutError:
        pass
