"""The jobs that wait for an engine, and the runs they become. Pure: no threads, the clock is passed in.

`JobQueue.take` forms the next run, `JobQueue.forecast` predicts what `take` will do, and `ThreadRun` compares a
thread's present run with what runs usually take (`service.batching.run_costs`). `service.batching.batcher` adds the
threads.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from service.batching.fair_turns import Backlog, Turn
from service.batching.run_costs import Forecast, RunCosts
from service.common.deadline import Clock, Deadline
from service.tracing.tracing import Trace

J = TypeVar("J")
R = TypeVar("R")

# A run that takes this many times the usual is too slow, and not only unlucky.
_OVERRUN = 2.0
# Part of its time that a job may wait and still count as begun at once.
_AT_ONCE = 0.1


@dataclass(slots=True, eq=False)
class Entry(Generic[J, R]):
    """A job in the queue.

    Attributes:
        job: The job.
        group: Jobs of one group can share a run.
        deadline: When the result is needed.
        future: Gets the result, on the event loop.
        enqueued: Clock time at which the job was accepted.
        begun: Clock time at which its run began.
        ended: Whether its result is on its way.
        abandoned: Whether its waiter is gone.
        party: What it came together with: jobs of one party share a run, however many they are.
        trace: The trace that it belongs to, if its spans are kept.
    """

    job: J
    group: Hashable
    deadline: Deadline
    future: asyncio.Future[R]
    enqueued: float
    begun: float | None = None
    ended: bool = False
    abandoned: bool = False
    party: object = None
    trace: Trace | None = None

    @property
    def began_at_once(self) -> bool:
        """Whether its run had nearly all of the job's time."""
        return self.begun is not None and self.begun - self.enqueued <= _AT_ONCE * (self.deadline.at - self.enqueued)


@dataclass(slots=True, eq=False)
class ThreadRun:
    """The present run of one thread, if there is one.

    Attributes:
        costs: Measured run times.
        clock: Monotonic seconds.
        jobs: Jobs of the present run; 0 between runs.
        group: Their group.
        since: Clock time at which the run began; None between runs.
        overran: Whether the last run took too long.
        turn: The thread's turn among the spaces; None where there are no others.
    """

    costs: RunCosts
    clock: Clock
    jobs: int = 0
    group: Hashable = None
    since: float | None = None
    overran: bool = False
    turn: Turn | None = None

    def begin(self, group: Hashable, jobs: int) -> None:
        """Notes that a run begins."""
        self.group, self.jobs, self.since = group, jobs, self.clock()

    def end(self) -> None:
        """Notes that the run has ended, and measures its time whatever its outcome."""
        seconds, group, jobs = self.lasts(), self.group, self.jobs
        self.overran = self.overdue
        self.since, self.jobs = None, 0
        self.costs.ran(group, jobs, seconds)

    def lasts(self) -> float:
        """Returns the seconds so far; 0 between runs."""
        since = self.since
        return 0.0 if since is None else self.clock() - since

    @property
    def overdue(self) -> bool:
        """Whether the present run takes too long; between runs, whether the last one did."""
        if self.since is None:
            return self.overran
        return self.lasts() > _OVERRUN * self._expected()

    def left(self) -> float:
        """Forecasts the seconds left of the present run; 0 between runs.

        A run that is over its time is expected to take as long again as it is over: a run that hangs admits no jobs.
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
    """Jobs in order of arrival, taken in runs of one group. Not thread-safe: callers that share it hold a lock."""

    def __init__(self, costs: RunCosts, clock: Clock) -> None:
        self._costs = costs
        self._clock = clock
        self._entries: deque[Entry[J, R]] = deque()
        self._waiting: dict[Hashable, _Waiting] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: Entry[J, R]) -> None:
        """Appends a job."""
        self._entries.append(entry)
        self._note(entry)

    def clear(self) -> list[Entry[J, R]]:
        """Empties the queue and returns its jobs."""
        left = list(self._entries)
        self._entries.clear()
        self._waiting.clear()
        return left

    def spare_s(self, batch_max: int) -> float:
        """Returns the seconds until the next run must begin to meet the earliest deadline."""
        group = self._entries[0].group
        run_s = self._costs.run_s(group, min(batch_max, self._waiting[group].jobs))
        return min(entry.deadline.at for entry in self._entries) - run_s - self._clock()

    def take(self) -> tuple[list[Entry[J, R]], list[Entry[J, R]]]:
        """Takes the next run out of the queue.

        A run is the first job and as many others of its group as can be done before the deadline of each. A job that
        would be late even alone gives way to the jobs behind it. If there are none it is run after all: only a run
        shows whether runs are still that slow.

        Returns:
            The jobs of the run, and the jobs for which it is too late.
        """
        now = self._clock()
        if len(self._entries) == 1:
            return self._take_only(now)
        expired = [entry for entry in self._entries if entry.deadline.at <= now and not entry.abandoned]
        self._entries = deque(entry for entry in self._entries if entry.deadline.at > now and not entry.abandoned)
        batch: list[Entry[J, R]] = []
        while self._entries and not batch:
            group, party = self._entries[0].group, self._entries[0].party
            mates = [entry for entry in self._entries if entry.group == group]
            # They were queued at once, so they are in front.
            own = 0 if party is None else sum(entry.party is party for entry in mates)
            rows = self._costs.rows_within(group, (entry.deadline.at - now for entry in mates), together=own)
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

    def _take_only(self, now: float) -> tuple[list[Entry[J, R]], list[Entry[J, R]]]:
        """Takes the only job, which is run unless it is too late: what runs cost makes no difference."""
        entry = self._entries.popleft()
        self._waiting.clear()
        if entry.abandoned:
            return [], []
        if entry.deadline.at <= now:
            return [], [entry]
        entry.begun = now
        return [entry], []

    def forecast(self, group: Hashable, runs: Sequence[ThreadRun], jobs: int = 1) -> Forecast:
        """Forecasts when jobs of this group would be done if they were added now.

        It waits for the runs under way, and for one or more runs of each group in the queue.

        Args:
            group: The job's group.
            runs: The threads' present runs.
            jobs: Number of jobs; several of them came together.
        """
        alone = self._costs.run_s(group, 1)
        if jobs == 1 and not self._entries and all(run.since is None for run in runs):
            if not self._costs.known(group):
                return Forecast()  # nothing is ahead, and a guess is no reason to refuse
            return Forecast(alone, alone, idle=True, measured=self._costs.measured(group))
        under_way = min(run.left() for run in runs)
        begins = self._clock() + under_way
        own = self._waiting.get(group, _Waiting())
        ahead = sum(
            self._costs.drain_s(key, waiting.jobs, waiting.earliest - begins)
            for key, waiting in self._waiting.items()
            if key != group
        )
        ahead += self._costs.drain_s(group, own.jobs + jobs, own.earliest - begins, together=jobs)
        return Forecast(max(alone, under_way + ahead / len(runs)), alone, idle=False)

    def backlog(self) -> Backlog:
        """Forecasts the runs that the waiting jobs will take."""
        now, costs = self._clock(), self._costs
        waiting = [(key, group.jobs, group.earliest - now) for key, group in self._waiting.items()]
        return Backlog(
            sum(costs.drain_s(*group) for group in waiting),
            max((costs.largest_run_s(*group) for group in waiting), default=0.0),
        )

    def _note(self, entry: Entry[J, R]) -> None:
        waiting = self._waiting.get(entry.group, _Waiting())
        self._waiting[entry.group] = _Waiting(waiting.jobs + 1, min(waiting.earliest, entry.deadline.at))
