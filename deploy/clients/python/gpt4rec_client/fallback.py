"""What is shown when the service cannot be asked: the last good list of the same question, or a configured one."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gpt4rec_client.answers import RankedItem, Recommendation
from gpt4rec_client.errors import BadAnswer, ClientError, TimedOut, TooManyRequests, Unavailable, Unreachable

# Item ids, best first, or a function from the body of the question to them.
Configured = Sequence[str] | Callable[[Mapping[str, Any]], Sequence[str]]

# They change from one question to the next without changing which list is meant.
_VOLATILE = ("k", "seed", "events", "exclude", "budget_ms", "explain", "features")
# A configured list knows nothing of them, so it must not answer such a question.
_NARROWING = ("filter", "candidates", "cursor")
_REASONS: tuple[tuple[type[ClientError], str], ...] = (
    (TooManyRequests, "too_many_requests"),
    (Unavailable, "unavailable"),
    (TimedOut, "timed_out"),
    (Unreachable, "unreachable"),
    (BadAnswer, "bad_answer"),
)
_K = 10


class Fallback:
    """Keeps the last good list of each question, the oldest questions forgotten first. Threads may share it.

    Args:
        configured: What is shown without a last list; None for nothing.
        kept: Questions whose last list is kept; 0 for none.
    """

    def __init__(self, configured: Configured | None, kept: int) -> None:
        self._configured, self._kept = configured, kept
        self._last: OrderedDict[str, Recommendation] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, body: Mapping[str, Any], answer: Recommendation) -> None:
        """Remembers an answer as the last good one of its question."""
        if self._kept <= 0 or not answer.items or "cursor" in body:
            return
        with self._lock:
            name = _name(body)
            self._last[name] = answer
            self._last.move_to_end(name)
            while len(self._last) > self._kept:
                self._last.popitem(last=False)

    def instead(self, body: Mapping[str, Any], error: ClientError) -> Recommendation:
        """Returns a local list for a question that the service did not answer.

        Excluded items are left out, and so are those of the question's own events. Lists of others are never shown.

        Raises:
            ClientError: The error itself, if it is the caller's (such as a bad request), or if there is no list.
        """
        reason = next((reason for kind, reason in _REASONS if isinstance(error, kind)), None)
        if reason is None:
            raise error
        with self._lock:
            last = self._last.get(_name(body))
        found = (
            last.as_local(last.items, error, reason)
            if last is not None
            else self._of_configuration(body, error, reason)
        )
        out = {*body.get("exclude", ()), *(event.get("item_id") for event in body.get("events", ()))}
        left = [item for item in found.items if item.item_id not in out][: body.get("k", _K)]
        if not left:
            raise error
        return found.as_local(tuple(_placed(item, n) for n, item in enumerate(left, 1)), error, reason)

    def forget(self, *, user_id: str | None = None, session_id: str | None = None) -> None:
        """Forgets the lists of a user who was erased, or of a session that became a user."""
        with self._lock:
            for name, answer in list(self._last.items()):
                if (user_id is not None and answer.user_id == user_id) or (
                    session_id is not None and answer.session_id == session_id
                ):
                    del self._last[name]

    def _of_configuration(self, body: Mapping[str, Any], error: ClientError, reason: str) -> Recommendation:
        if self._configured is None:
            raise error
        if callable(self._configured):
            ids = self._configured(body)
        elif any(body.get(name) for name in _NARROWING):
            raise error
        else:
            ids = self._configured
        user_id = body.get("user_id")
        return Recommendation(
            items=tuple(RankedItem(item_id, n, None, None) for n, item_id in enumerate(dict.fromkeys(ids), 1)),
            list_id=None, source="local", rung=None, degraded=True, reason=reason, warnings=(), segment=None,
            strategy=None, model_version=None, arms={}, cursor=None, request_id=None, user_id=user_id,
            session_id=None if user_id is not None else body.get("session_id"), local=True, error=error,
        )  # fmt: skip


def _placed(item: RankedItem, rank: int) -> RankedItem:
    return RankedItem(item.item_id, rank, item.score, item.title, item.because, item.raw)


def _name(body: Mapping[str, Any]) -> str:
    return json.dumps({name: value for name, value in body.items() if name not in _VOLATILE}, sort_keys=True)
