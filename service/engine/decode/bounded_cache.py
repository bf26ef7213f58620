"""What was computed for earlier runs, kept for those that ask for the same."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class BoundedCache(Generic[K, V]):
    """A cache bounded by its entries and their bytes; the least recently used go first. Safe for several threads.

    Attributes:
        nbytes: Bytes of what it holds.
    """

    def __init__(self, entries_max: int, bytes_max: int) -> None:
        self._entries_max, self._bytes_max = entries_max, bytes_max
        self._lock = threading.Lock()
        self._entries: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K, compute: Callable[[], V], size: Callable[[V], int]) -> V:
        """Returns the value of a key. It is computed if it is not there, perhaps by several threads at once.

        Args:
            key: What the value depends on.
            compute: Returns the value, which must not be changed afterwards.
            size: Returns the bytes that a new entry takes.
        """
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                return self._entries[key][0]
        value = compute()
        with self._lock:
            if key not in self._entries:
                self._entries[key] = value, size(value)
                self.nbytes += self._entries[key][1]
            while len(self._entries) > self._entries_max or self.nbytes > self._bytes_max:
                self.nbytes -= self._entries.popitem(last=False)[1][1]
        return value
