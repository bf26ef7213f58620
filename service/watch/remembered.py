"""A sample of the lists of the last half hour, which does not grow with the traffic.

Lists come into the sample by a hash of their id. While there is room that is every list; when there is none, half of
those in it leave, and only one list in two, four, … comes in from then on. So what is in it says the same of a click
after twenty seconds as of one after twenty minutes, at any rate of lists.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from itertools import islice
from typing import Generic, TypeVar

T = TypeVar("T")

KEPT_MOST = 4096
KEPT_S = 1800.0


class Remembered(Generic[T]):
    """What is kept of lists, by their ids."""

    def __init__(self, most: int = KEPT_MOST, seconds: float = KEPT_S) -> None:
        """Starts empty, and takes every list.

        Args:
            most: Most lists at a time.
            seconds: How long a list is kept.
        """
        self._most, self._seconds = most, seconds
        self._lists: dict[str, tuple[float, T]] = {}
        self._halvings, self._changed_s = 0, float("-inf")

    def __len__(self) -> int:
        return len(self._lists)

    @property
    def one_in(self) -> int:
        """One list in so many is taken."""
        return 1 << self._halvings

    def add(self, list_id: str, what: T, now_s: float) -> None:
        """Keeps a list, if it is in the sample."""
        self.add_all([(list_id, what)], now_s)

    def add_all(self, lists: Sequence[tuple[str, T]], now_s: float) -> None:
        """Keeps those of some lists, by their ids, that are in the sample."""
        self._expire(now_s, 2 * len(lists))
        for list_id, what in lists:
            self._add(list_id, what, now_s)

    def _add(self, list_id: str, what: T, now_s: float) -> None:
        if not self.takes(list_id):
            return
        self._lists[list_id] = (now_s, what)
        while len(self._lists) > self._most:
            self._halvings, self._changed_s = self._halvings + 1, now_s
            self._lists = {one: kept for one, kept in self._lists.items() if self.takes(one)}

    def get(self, list_id: str, now_s: float) -> T | None:
        """Returns what is kept of a list; None if it is not in the sample, or too old."""
        kept = self._lists.get(list_id)
        return None if kept is None or now_s - kept[0] > self._seconds else kept[1]

    def takes(self, list_id: str) -> bool:
        """Returns whether a list comes into the sample now."""
        return zlib.crc32(list_id.encode()) % self.one_in == 0

    def _expire(self, now_s: float, most: int) -> None:
        """Forgets the oldest lists, `most` at a time; takes more where a sample of twice the size would fit."""
        for list_id in list(islice(self._lists, most)):
            if now_s - self._lists[list_id][0] > self._seconds:
                del self._lists[list_id]
        if self._halvings and 4 * len(self._lists) < self._most and now_s - self._changed_s > self._seconds:
            self._halvings, self._changed_s = self._halvings - 1, now_s
