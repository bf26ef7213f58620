"""A replica of the measurement of the live catalogue: what is asked of it, and how long it takes to follow."""

from __future__ import annotations

import http.client
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import orjson

# Lists that are asked for once an item is gone.
AFTERWARDS = 5
_TOKEN = {"Authorization": "Bearer load"}
_JSON = {"Content-Type": "application/json"}
_GIVE_UP_S = 30.0
_BETWEEN_S = 0.01


class Replica:
    """A service, and a connection to it. Used by one thread at a time."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=_GIVE_UP_S)

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()

    def call(self, method: str, path: str, body: bytes = b"") -> dict[str, Any]:
        """Returns an answer.

        Raises:
            RuntimeError: It is an error.
        """
        self._connection.request(method, path, body, {**_TOKEN, **_JSON})
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{method} {path}: {answer.status} {text[:300]!r}")
        found: dict[str, Any] = orjson.loads(text)
        return found

    def ranks(self, item: str, beside: Sequence[str]) -> bool:
        """Returns whether a list of these items has the first."""
        body = {"user_id": "catalogue", "candidates": [item, *beside], "k": 1 + len(beside), "exclude_seen": False,
                "budget_ms": 2000}  # fmt: skip
        answer = self.call("POST", "/recommend", orjson.dumps(body))
        return item in (one["item_id"] for one in answer["items"])

    def listed_after(self, item: str, beside: Sequence[str], since: float) -> float:
        """Waits for the first list that has an item.

        Returns:
            Seconds from `since` until it was answered; `_GIVE_UP_S` if it takes longer.
        """
        while not self.ranks(item, beside):
            if time.perf_counter() - since > _GIVE_UP_S:
                return _GIVE_UP_S
            time.sleep(_BETWEEN_S)
        return time.perf_counter() - since

    def gone_after(self, item: str, beside: Sequence[str], since: float) -> tuple[float, int]:
        """Asks for lists until one does not have an item, and for some more.

        Returns:
            Seconds from `since` until the last list that had it was answered, 0 if none had, `_GIVE_UP_S` if it takes
            longer; and how many of those asked for afterwards had it.
        """
        last_s = 0.0
        while self.ranks(item, beside):
            last_s = time.perf_counter() - since
            if last_s > _GIVE_UP_S:
                return _GIVE_UP_S, 0
            time.sleep(_BETWEEN_S)
        return last_s, sum(self.ranks(item, beside) for _ in range(AFTERWARDS))
