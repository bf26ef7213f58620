"""Entries of one stream that wait to be written: bounded, and each of them counted once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice

from prometheus_client import Counter

from service.common import logs
from service.exposures.exposure import subject_name
from service.store.records import Subject
from service.store.streams.log_streams import Entry, StreamName

log = logs.get(__name__)

# Entries written in one round trip: with lists of a hundred items a megabyte or two.
BATCH = 256
OUTCOMES = ("recorded", "dropped", "failed")

# Whose entry it is, the id of its list or "", and the entry or what makes it. A tuple: one is built for each list while
# its answer waits.
Waiting = tuple[Subject | None, str, Entry | Callable[[], Entry]]


class EntryQueue:
    """Filled behind the answers, emptied by the recorder. Not thread-safe: use it from the event loop only.

    An entry is made right behind its answer (`make_newest`). To make a batch of them in a row would take half of the
    time, but unmade they keep their requests alive, and hundreds of live requests cost the garbage collector more.
    """

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

    def add(self, waiting: Waiting) -> int:
        """Adds an entry; a full queue drops it, unmade. Returns how many wait to be taken."""
        queue = self._waiting
        if len(queue) + len(self._sending) < self._most:
            queue.append(waiting)
        else:
            self.count("dropped")
        return len(queue)

    def make_newest(self) -> None:
        """Makes the newest entries, back to one that is made already."""
        unmade = []
        while self._waiting and not isinstance(self._waiting[-1][2], tuple):
            unmade.append(self._waiting.pop())
        self._waiting.extend(made for waiting in reversed(unmade) if (made := self.made(waiting)) is not None)

    def made(self, waiting: Waiting) -> Waiting | None:
        """Returns the same with its entry made; None, and it counts as failed, if that cannot be done."""
        subject, list_id, what = waiting
        if isinstance(what, tuple):
            return waiting
        try:
            return subject, list_id, what()
        except Exception as error:
            self.count("failed")
            log.error("entry_not_made", stream=self.stream, **logs.where(error))
            return None

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
        kept = [waiting for waiting in left if subject_name(waiting[0]) not in forgotten]
        self.count("dropped", len(left) - len(kept))
        self._waiting.extendleft(reversed(kept))
        return forgotten

    def forget(self, subject: str) -> None:
        """Drops the entries of a subject that is erased."""
        kept = [waiting for waiting in self._waiting if subject_name(waiting[0]) != subject]
        self.count("dropped", len(self._waiting) - len(kept))
        self._waiting = deque(kept)
        if any(subject_name(waiting[0]) == subject for waiting in self._sending):
            self._forgotten.add(subject)

    def give_up(self) -> None:
        """Counts everything that waits as failed, and drops it."""
        self.count("failed", len(self))
        self._waiting.clear()
        self._sending = ()
