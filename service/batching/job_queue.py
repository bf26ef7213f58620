"""The jobs before an engine, and the runs they become. Pure: no threads, the clock is passed in.

`JobQueue.take` forms the next run, `JobQueue.forecast` predicts what `take` will do, and `Run` knows how its present
run compares with what runs take (`service.batching.run_costs`). `service.batching.batcher` adds the threads.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from service.batching.run_costs import Forecast, RunCosts
from service.common.deadline import Clock, Deadline

J = TypeVar("J")
R = TypeVar("R")

# A run that takes so many times what runs take is too long, and not only unlucky.
_OVERRUN = 2.0
# Part of its time that a job may wait and still be said to have begun at once.
_AT_ONCE = 0.1


@dataclass(slots=True, eq=False)
class Entry(Generic[J, R]):
    """A job and who waits for it; `begun` when its run did, `ended` when its result is on its way, `abandoned` where
    nobody waits any more."""

    job: J
    group: Hashable
    deadline: Deadline
    future: asyncio.Future[R]
    enqueued: float
    begun: float | None = None
    ended: bool = False
    abandoned: bool = False

    @property
    def began_at_once(self) -> bool:
        """Whether its run had nearly all of the time it was given."""
        return self.begun is not None and self.begun - self.enqueued <= _AT_ONCE * (self.deadline.at - self.enqueued)


@dataclass(slots=True, eq=False)
class Run:
    """The run of one thread: `jobs` of a group under way `since` then; or none, and whether the last one overran."""

    costs: RunCosts
    clock: Clock
    jobs: int = 0
    group: Hashable = None
    since: float | None = None
    overran: bool = False

    def begin(self, group: Hashable, jobs: int) -> None:
        self.group, self.jobs, self.since = group, jobs, self.clock()

    def end(self) -> None:
        """Its time is measured, whatever came of it."""
        seconds, group, jobs = self.lasts(), self.group, self.jobs
        self.overran = self.overdue
        self.since, self.jobs = None, 0
        self.costs.ran(group, jobs, seconds)

    def lasts(self) -> float:
        """Seconds so far; 0 where there is no run."""
        since = self.since
        return 0.0 if since is None else self.clock() - since

    @property
    def overdue(self) -> bool:
        """Whether the present run takes too long, or the last one did."""
        if self.since is None:
            return self.overran
        return self.lasts() > _OVERRUN * self._expected()

    def left(self) -> float:
        """What is left of the present run.

        One that takes longer than runs do is taken to last as long again as it is over its time: one that hangs lets
        nobody in behind it.
        """
        return 0.0 if self.since is None else abs(self.lasts() - self._expected())

    def _expected(self) -> float:
        return self.costs.run_s(self.group, max(1, self.jobs))


@dataclass(frozen=True, slots=True)
class _Waiting:
    """How many jobs of a group wait, and the earliest deadline among them."""

    jobs: int = 0
    earliest: float = math.inf


class JobQueue(Generic[J, R]):
    """In order of arrival; runs are of one group. Not thread-safe: whoever shares it holds a lock."""

    def __init__(self, costs: RunCosts, clock: Clock) -> None:
        self._costs = costs
        self._clock = clock
        self._entries: deque[Entry[J, R]] = deque()
        self._waiting: dict[Hashable, _Waiting] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: Entry[J, R]) -> None:
        self._entries.append(entry)
        self._note(entry)

    def clear(self) -> list[Entry[J, R]]:
        """Empties the queue; returns what was in it."""
        left = list(self._entries)
        self._entries.clear()
        self._waiting.clear()
        return left

    def spare_s(self, batch_max: int) -> float:
        """Seconds until the next run must begin, if the earliest deadline is to be met."""
        group = self._entries[0].group
        run_s = self._costs.run_s(group, min(batch_max, self._waiting[group].jobs))
        return min(entry.deadline.at for entry in self._entries) - run_s - self._clock()

    def take(self) -> tuple[list[Entry[J, R]], list[Entry[J, R]]]:
        """The next run: the first job and those of its group, as many as are done before the deadline of each; and
        those for whom it is too late.

        A job that would be late even alone gives way to those behind it. Where there are none it is run: somebody has
        to find out whether runs still take so long.
        """
        now = self._clock()
        expired = [entry for entry in self._entries if entry.deadline.at <= now and not entry.abandoned]
        self._entries = deque(entry for entry in self._entries if entry.deadline.at > now and not entry.abandoned)
        batch: list[Entry[J, R]] = []
        while self._entries and not batch:
            group = self._entries[0].group
            mates = [entry for entry in self._entries if entry.group == group]
            rows = self._costs.rows_within(group, (entry.deadline.at - now for entry in mates))
            if rows or len(self._entries) == 1:
                batch = mates[: max(1, rows)]
            else:
                expired.append(self._entries.popleft())
        for entry in batch:
            entry.begun = now
        self._entries = deque(entry for entry in self._entries if entry.begun is None)
        self._waiting.clear()
        for entry in self._entries:
            self._note(entry)
        return batch, expired

    def forecast(self, group: Hashable, runs: Sequence[Run]) -> Forecast:
        """When a job of this group would be done if it were added now: after the runs under way, and one run or more
        for each group that waits."""
        alone = self._costs.run_s(group, 1)
        if not self._entries and all(run.since is None for run in runs):
            if not self._costs.known(group):
                return Forecast()  # a guess is no reason to refuse what nobody has to wait for
            return Forecast(alone, alone, idle=True, measured=self._costs.measured(group))
        under_way = min(run.left() for run in runs)
        begins = self._clock() + under_way
        own = self._waiting.get(group, _Waiting())
        ahead = sum(
            self._costs.drain_s(key, waiting.jobs, waiting.earliest - begins)
            for key, waiting in self._waiting.items()
            if key != group
        )
        ahead += self._costs.drain_s(group, own.jobs + 1, own.earliest - begins)
        return Forecast(max(alone, under_way + ahead / len(runs)), alone, idle=False)

    def _note(self, entry: Entry[J, R]) -> None:
        waiting = self._waiting.get(entry.group, _Waiting())
        self._waiting[entry.group] = _Waiting(waiting.jobs + 1, min(waiting.earliest, entry.deadline.at))
