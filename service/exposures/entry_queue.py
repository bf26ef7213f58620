"""Entries of one stream that wait to be written: bounded, and each of them counted once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice

from prometheus_client import Counter

from service.common import logs
from service.store.log_streams import Entry, StreamName

log = logs.get(__name__)

# Entries written in one round trip: with lists of a hundred items a megabyte or two.
BATCH = 256
OUTCOMES = ("recorded", "dropped", "failed")

# Number of the shard, and the entry.
Waiting = tuple[int, Entry]


class EntryQueue:
    """Filled behind the answers, emptied by the recorder. Not thread-safe: use it from the event loop only."""

    def __init__(self, stream: StreamName, most: int, counter: Counter) -> None:
        """Creates an empty queue.

        Args:
            stream: The stream that its entries go to.
            most: Entries that may wait.
            counter: Counts what becomes of each, by outcome.
        """
        self.stream = stream
        self._most, self._counter = most, counter
        self._waiting: deque[Waiting] = deque()
        self._sending: Sequence[Waiting] = ()
        self._forgotten: set[str] = set()
        self._counters = {outcome: counter.labels(outcome) for outcome in OUTCOMES}

    def __len__(self) -> int:
        return len(self._waiting) + len(self._sending)

    @property
    def full_batch(self) -> bool:
        """Whether as many wait as are written at a time."""
        return len(self._waiting) >= BATCH

    def count(self, outcome: str, entries: int = 1) -> None:
        """Counts what became of entries."""
        if entries:
            self._counters[outcome].inc(entries)

    def add(self, shard: int, make: Callable[[], Entry]) -> None:
        """Adds an entry for a shard; a full queue drops it, unmade."""
        if len(self) >= self._most:
            self.count("dropped")
            return
        try:
            self._waiting.append((shard, make()))
        except Exception as error:
            self.count("failed")
            log.error("entry_not_made", stream=self.stream, **logs.where(error))

    def take(self) -> Sequence[Waiting]:
        """Returns the oldest entries, one batch at most. End with `sent`, whatever became of them."""
        self._sending = tuple(islice(self._waiting, BATCH))
        for _ in self._sending:
            self._waiting.popleft()
        return self._sending

    def sent(self, again: Iterable[Waiting] = ()) -> set[str]:
        """Ends the sending of what was taken.

        Args:
            again: Entries that must be sent again, oldest first. Those of erased subjects are dropped.

        Returns:
            Subjects that were erased meanwhile: what was written of them must be erased again.
        """
        forgotten, self._forgotten, self._sending = self._forgotten, set(), ()
        left = list(again)
        kept = [waiting for waiting in left if waiting[1][3] not in forgotten]
        self.count("dropped", len(left) - len(kept))
        self._waiting.extendleft(reversed(kept))
        return forgotten

    def forget(self, subject: str) -> None:
        """Drops the entries of a subject that is erased."""
        kept = [waiting for waiting in self._waiting if waiting[1][3] != subject]
        self.count("dropped", len(self._waiting) - len(kept))
        self._waiting = deque(kept)
        if any(entry[3] == subject for _, entry in self._sending):
            self._forgotten.add(subject)

    def give_up(self) -> None:
        """Counts everything that waits as failed, and drops it."""
        self.count("failed", len(self))
        self._waiting.clear()
        self._sending = ()
