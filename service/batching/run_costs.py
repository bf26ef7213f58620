"""Run times of the engine: running medians of measured times, by kind of run and number of rows. Pure.

They are medians because the question is whether a run *typically* fits. Runs that are slow now and then are for the
error budgets to count (`service.guard.breaker`), not for a forecast to avoid: two judges of one thing would fight.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

# Length of the running median: a change shows after half as many runs.
_RUNS = 15
# Part of a forecast that is added to it before it is compared with a deadline: half of the runs take longer than their
# median, and jobs that arrive later may join the runs ahead.
_HEADROOM = 0.25
# Assumed cost of a group that was never run, as a part of the cheapest group that was.
_NEW = 0.5
# Measurements older than this are forgotten, and the size is tried again.
_FORGET_S = 60.0


@dataclass(frozen=True, slots=True)
class Forecast:
    """When a job would be done if it were submitted now.

    Attributes:
        seconds: Seconds until then, the jobs ahead included; 0 if no such run was measured.
        alone: The same if no job were ahead.
        idle: Whether no job is ahead.
        measured: Clock time at which a run of its kind last ended.
    """

    seconds: float = 0.0
    alone: float = 0.0
    idle: bool = True
    measured: float = -math.inf


def with_headroom(seconds: float) -> float:
    """Returns a forecast with the headroom that it needs before it is compared with a deadline."""
    return seconds * (1.0 + _HEADROOM)


class RunningQuantile:
    """A quantile of the latest values, by nearest rank.

    Attributes:
        value: The quantile; 0 before the first value.
        updated: Clock time of the latest value.
    """

    __slots__ = ("_latest", "_ranked", "_share", "updated", "value")

    def __init__(self, share: float = 0.5, most: int = _RUNS, first: Iterable[float] = ()) -> None:
        """Starts with the values `first`.

        Args:
            share: The quantile, 0 … 1.
            most: Number of latest values that count.
            first: Values to begin with.
        """
        self._latest: deque[float] = deque(first, maxlen=most)
        self._ranked: list[float] = sorted(self._latest)
        self._share = share
        self.value = 0.0
        self.updated = -math.inf

    def add(self, value: float, now: float) -> None:
        """Adds a value, measured at `now`."""
        ranked, latest = self._ranked, self._latest
        if len(latest) == latest.maxlen:
            del ranked[bisect_left(ranked, latest[0])]
        latest.append(value)
        insort(ranked, value)
        self.value, self.updated = ranked[math.ceil(self._share * len(ranked)) - 1], now


class RunCosts:
    """Run times in seconds of each group (a beam width, a history length), by the number of rows.

    Written by the threads that run jobs and read by the event loop, without a lock: entries are only ever replaced.
    """

    def __init__(self, batch_max: int, clock: Callable[[], float], *, together_max: int = 0) -> None:
        """Begins without measurements.

        Args:
            batch_max: Most rows of a run.
            clock: Monotonic seconds.
            together_max: Most rows of a run whose jobs came together, if that is more.
        """
        self._batch_max = batch_max
        self._clock = clock
        places = self._places = [_place(rows) for rows in range(max(batch_max, together_max) + 1)]
        # The smallest number of rows of each class.
        self._firsts = [n for n in range(1, len(places)) if n == 1 or places[n] != places[n - 1]]
        self._groups: dict[Hashable, list[RunningQuantile]] = {}
        self._ended: dict[Hashable, float] = {}

    def ran(self, group: Hashable, rows: int, seconds: float) -> None:
        """Adds the time of a run of `rows` rows, whatever its outcome."""
        sizes = self._groups.get(group)
        if sizes is None:
            sizes = self._groups[group] = [RunningQuantile() for _ in range(self._places[-1] + 1)]
        place, now = self._places[rows], self._clock()
        if now - sizes[place].updated >= _FORGET_S:
            sizes[place] = RunningQuantile()
        sizes[place].add(seconds, now)
        self._ended[group] = now

    def run_s(self, group: Hashable, rows: int) -> float:
        """Returns the seconds that a run of `rows` rows takes; 0 if nothing was measured yet.

        A size that was never run is assumed to cost no more than one half as large, and beyond that in proportion:
        batches grow and are measured, instead of being refused for what they might cost. A group that was never run is
        assumed to cost half of the cheapest one that was: enough to keep a slow model from a whole batch of a new kind.
        """
        known = self._known_s(group, rows)
        if known is None:
            others = (self._known_s(other, rows) for other in list(self._groups))
            known = _NEW * min((cost for cost in others if cost is not None), default=0.0)
        return known

    def known(self, group: Hashable) -> bool:
        """Returns whether a run of the group was measured lately."""
        return self._known_s(group, 1) is not None

    def measured(self, group: Hashable) -> float:
        """Returns the clock time at which a run of the group last ended; −∞ if never."""
        return self._ended.get(group, -math.inf)

    def _known_s(self, group: Hashable, rows: int) -> float | None:
        sizes = self._groups.get(group)
        if sizes is None:
            return None
        place, since = self._places[rows], self._clock() - _FORGET_S
        if sizes[place].updated > since:
            return sizes[place].value
        for known in range(place - 1, -1, -1):
            if sizes[known].updated > since:
                return sizes[known].value * math.exp2(max(0, place - known - 2) / 2.0)
        return min((size.value for size in sizes[place:] if size.updated > since), default=None)

    def drain_s(self, group: Hashable, jobs: int, left_s: float = math.inf, *, together: int = 0) -> float:
        """Returns the seconds that `jobs` jobs of a group take, in as few runs as possible.

        Args:
            group: Their group.
            jobs: Their number.
            left_s: Seconds until the first deadline among them, which limits the size of the runs.
            together: How many of them came together.
        """
        rows = max(1, self._rows_before(group, jobs, left_s, together))
        runs, rest = divmod(jobs, rows)
        return runs * self.run_s(group, rows) + (self.run_s(group, rest) if rest else 0.0)

    def largest_run_s(self, group: Hashable, jobs: int, left_s: float = math.inf) -> float:
        """Returns the seconds of the largest run among those of `drain_s`."""
        return self.run_s(group, max(1, self._rows_before(group, jobs, left_s, 0)))

    def _rows_before(self, group: Hashable, jobs: int, left_s: float, together: int) -> int:
        """What `rows_within` returns for so many jobs with the same time left, looked up once for each size class."""
        most = min(jobs, max(self._batch_max, min(together, len(self._places) - 1)))
        for first in self._firsts:
            if first > most:
                break
            if with_headroom(self.run_s(group, first)) > left_s:
                return first - 1
        return most

    def rows_within(self, group: Hashable, spare: Iterable[float], *, together: int = 0) -> int:
        """Returns how many of the first jobs can share a run without any of them being late.

        Args:
            group: Their group.
            spare: Their seconds left, in order of arrival.
            together: How many of the first came together: as many may share a run, even if it is more than usual.

        Returns:
            The number of jobs; 0 if the first would be late even alone.
        """
        rows, tightest = 0, math.inf
        most = max(self._batch_max, min(together, len(self._places) - 1))
        for left in spare:
            tightest = min(tightest, left)
            if rows >= most or with_headroom(self.run_s(group, rows + 1)) > tightest:
                break
            rows += 1
        return rows


def _place(rows: int) -> int:
    """Numbers of rows whose costs are measured together: two classes to each doubling (1, 2, 3, 4, 5–6, 7–9, …)."""
    return round(2.0 * math.log2(max(1, rows)))
