"""What is shown when the service cannot be asked: the last good list of the same question, or a configured one."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from gpt4rec_client.answers import RankedItem, Recommendation, recommendation
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

    def settled(self, body: Mapping[str, Any], found: Recommendation | ClientError) -> Recommendation | ClientError:
        """Remembers an answer, or returns a local list for an error; the error itself if there is none."""
        if isinstance(found, Recommendation):
            self.keep(body, found)
            return found
        try:
            return self.instead(body, found)
        except ClientError as error:
            return error

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
        items = last.items if last is not None else self._of_configuration(body)
        out = {
            *body.get("exclude", ()),
            *body.get("items", ()),
            *(event.get("item_id") for event in body.get("events", ())),
        }
        k = body.get("k", len(body["candidates"]) if body.get("candidates") else _K)
        left = [item for item in items if item.item_id not in out][:k]
        if not left:
            raise error
        placed = tuple(replace(item, rank=n) for n, item in enumerate(left, 1))
        return (last or _nothing(body)).as_local(placed, error, reason)

    def forget(self, *, user_id: str | None = None, session_id: str | None = None) -> None:
        """Forgets the lists of a user who was erased, or of a session that became a user."""
        with self._lock:
            for name, answer in list(self._last.items()):
                if (user_id is not None and answer.user_id == user_id) or (
                    session_id is not None and answer.session_id == session_id
                ):
                    del self._last[name]

    def _of_configuration(self, body: Mapping[str, Any]) -> tuple[RankedItem, ...]:
        """Returns what is shown without a last list. Items that the question names stand in its own order."""
        ids: Sequence[str] = ()
        if callable(self._configured):
            ids = self._configured(body)
        elif body.get("candidates") and not body.get("filter"):
            ids = body["candidates"]
        elif self._configured is not None and not any(body.get(name) for name in _NARROWING):
            ids = self._configured
        return tuple(RankedItem(item_id, 0, None, None) for item_id in dict.fromkeys(ids))


def _nothing(body: Mapping[str, Any]) -> Recommendation:
    """Returns an empty list for whom the question is about."""
    subject = {"user_id": body.get("user_id"), "session_id": body.get("session_id")}
    return recommendation({"items": [], "source": "local", **subject})


def _name(body: Mapping[str, Any]) -> str:
    """Returns what tells this question from others; without a user or session, its events do."""
    named = body.get("user_id") is not None or body.get("session_id") is not None
    volatile = _VOLATILE if named else [name for name in _VOLATILE if name != "events"]
    return json.dumps({name: value for name, value in body.items() if name not in volatile}, sort_keys=True)
