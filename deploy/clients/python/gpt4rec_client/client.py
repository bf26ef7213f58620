"""The client for threads: each call returns its answer."""

from __future__ import annotations

import atexit
import time
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
from gpt4rec_client.items import Items
from gpt4rec_client.options import Options, address, complete, outbox
from gpt4rec_client.questions import Call, Feature, Question
from gpt4rec_client.sender import Sender

T = TypeVar("T")


class Client:
    """A client that threads may share. Close it, or use it in a `with` statement: that sends the events that wait.

    The time of a call bounds connecting, waiting for the answer and each read of it; the time between them is checked.

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
        self, base_url: str, *, transport: httpx.BaseTransport | None = None, **options: Unpack[Options]
    ) -> None:
        self._options = found = complete(options)
        self._http = httpx.Client(base_url=address(base_url, found), transport=transport)
        self._fallback = Fallback(found["fallback"], found["kept_lists"])
        self.items = Items(self._do)
        self._sender = Sender(outbox(found), self.send)
        atexit.register(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- lists

    def recommend(self, **question: Unpack[Question]) -> Recommendation:
        """Returns a list. If the service cannot be asked, it is a local one (`local` is true, `reason` says why).

        Args:
            question: See `Question`.

        Raises:
            ClientError: The question is wrong, or there is no local list either.
        """
        return self._asked(questions.body_of(question, self._options["budget_ms"]), "/recommend")

    def next_page(self, before: Recommendation, **question: Unpack[Question]) -> Recommendation | None:
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
        return self._do(questions.recommend(body))

    def recommend_batch(
        self, asked: Sequence[Question], budget_ms: float | None = None
    ) -> list[Recommendation | ClientError]:
        """Returns up to 100 lists, in order, each as `recommend` does; an error in place of a list that there is not.

        Args:
            asked: The questions.
            budget_ms: Time budget of the whole batch in the service.
        """
        bodies = [questions.body_of(question, None) for question in asked]
        try:
            found = self._do(questions.recommend_batch(bodies, budget_ms or self._options["budget_ms"]))
        except ClientError as error:
            found = [error] * len(bodies)
        return [self._fallback.settled(body, answer) for body, answer in zip(bodies, found, strict=True)]

    def recommend_for_basket(self, items: Sequence[str], **question: Unpack[Question]) -> Recommendation:
        """Returns what goes with the items of a basket, for a user, a session or nobody. Else as `recommend`.

        Args:
            items: What is in the basket, oldest first, at most 100.
            question: `user_id`, `session_id`, `k`, `scene`, `context`, `filter`, `exclude`, `exclude_seen`, `features`,
                `fields`, `explain` and `budget_ms`.
        """
        body = questions.basket_of(items, question, self._options["budget_ms"])
        return self._asked(body, "/baskets/recommend")

    def similar(self, item_id: str, k: int = 10, fields: Sequence[str] = ()) -> Related:
        """Returns the items most like an item: what a product page shows."""
        return self._do(questions.beside(item_id, "similar", k, fields))

    def together(self, item_id: str, k: int = 10, fields: Sequence[str] = ()) -> Related:
        """Returns the items that are most often in one basket with an item."""
        return self._do(questions.beside(item_id, "together", k, fields))

    # -- events

    def track(self, event: Event) -> bool:
        """Queues an event and returns at once. It is sent with others, and again until the service accepts it.

        Returns:
            False if the queue is full; `on_drop` was told.

        Raises:
            RuntimeError: The client is closed.
        """
        return self._sender.add(event)

    def flush(self, within_s: float = 5.0) -> int:
        """Sends what waits; returns how many events are left after `within_s` seconds."""
        return self._sender.flush(within_s)

    def send(self, events: Sequence[Event]) -> EventsAnswer:
        """Stores events now: they are written when this returns. At most 1,000."""
        return self._do(questions.send(events))

    # -- who it is

    def merge(self, session_id: str, user_id: str) -> int:
        """Gives the history of an anonymous session to the user who logged in.

        What waits of the session is sent before; what cannot be sent now will be sent as the user's.

        Returns:
            The number of events that were new to the user.
        """
        self._sender.flush(self._options["timeout_s"])
        self._sender.belongs(session_id, user_id)
        moved = self._do(questions.merge(session_id, user_id))
        self._fallback.forget(session_id=session_id, user_id=user_id)
        return moved

    def user(self, user_id: str) -> dict[str, Any]:
        """Returns everything that is stored about a user. The key needs the right `users`."""
        return self._do(questions.show_user(user_id))

    def erase(self, user_id: str) -> Erased:
        """Deletes everything about a user, events that wait and last lists too. The key needs the right `users`."""
        self._sender.forget(user_id, self._options["timeout_s"])
        self._fallback.forget(user_id=user_id)
        return self._do(questions.erase(user_id))

    def put_user_features(self, user_id: str, features: Mapping[str, Feature]) -> dict[str, Any]:
        """Stores the features of a user in place of those before. The key needs the right `users`."""
        return self._do(questions.put_features("user", user_id, features))

    def put_session_features(self, session_id: str, features: Mapping[str, Feature]) -> dict[str, Any]:
        """Stores the features of an anonymous session in place of those before. The key needs the right `users`."""
        return self._do(questions.put_features("session", session_id, features))

    # -- the end

    def close(self) -> int:
        """Sends what waits, for `close_timeout_s` seconds; returns how many events had to be dropped."""
        atexit.unregister(self.close)
        dropped = self._sender.close(self._options["close_timeout_s"])
        self._http.close()
        return dropped

    def _asked(self, body: dict[str, Any], path: str) -> Recommendation:
        try:
            answer = self._do(questions.recommend(body, path))
        except ClientError as error:
            return self._fallback.instead(body, error)
        self._fallback.keep(body, answer)
        return answer

    def _do(self, call: Call[T]) -> T:
        attempts = Attempts(self._options["timeout_s"], self._options["retries"])
        while True:
            try:
                return self._attempt(call, attempts)
            except ClientError as error:
                time.sleep(attempts.pause_s(error))

    def _attempt(self, call: Call[T], attempts: Attempts) -> T:
        left = attempts.remaining_s()
        request = self._http.build_request(
            call.method,
            call.path,
            content=call.content(left),
            params=call.query,
            headers=questions.headers(self._options["api_key"], start=self._options["send_start"]),
            timeout=left,
        )
        try:
            response = self._http.send(request, stream=True)
            try:
                parts = []
                for part in response.iter_bytes():
                    attempts.remaining_s()
                    parts.append(part)
            finally:
                response.close()
        except httpx.TimeoutException as error:
            raise TimedOut(f"{call.method} {call.path}: no answer in time") from error
        except (httpx.RequestError, RuntimeError) as error:  # RuntimeError: the client was closed meanwhile
            raise Unreachable(f"{call.method} {call.path}: {error}") from error
        return call.answer(response.status_code, b"".join(parts), response.headers.get("retry-after"))
