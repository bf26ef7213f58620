"""What engine runs take: running medians of measured times, by kind of run and number of rows. Pure.

The median, because the question is whether a run *typically* fits. Runs that are slow now and then are not for a
prediction to avoid but for the error budgets to count (`service.guard.breaker`): two judges of the same thing would fight.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from itertools import repeat

# A change shows after half of so many runs.
_RUNS = 15
# Part of a prediction that is added to it before it is compared with a deadline: half of the runs take longer than
# their median, and jobs that come later may join the runs ahead.
_HEADROOM = 0.25
# What a group that was never run is taken to cost, of the cheapest that was.
_NEW = 0.5
# Sizes that were not run for so long are forgotten, and tried again.
_FORGET_S = 60.0


@dataclass(frozen=True, slots=True)
class Forecast:
    """Seconds until a job submitted now would be done: behind what is ahead of it, and if it were `alone`. `idle` says
    that nothing is ahead, `measured` when a run of its kind last ended. What was never measured takes 0."""

    seconds: float = 0.0
    alone: float = 0.0
    idle: bool = True
    measured: float = -math.inf


def with_headroom(seconds: float) -> float:
    """A prediction as it is compared with the time that is left."""
    return seconds * (1.0 + _HEADROOM)


class RunningQuantile:
    """The value that `share` of the latest `most` values do not exceed (nearest rank), `first` ones among them."""

    __slots__ = ("_latest", "_ranked", "_share", "updated", "value")

    def __init__(self, share: float = 0.5, most: int = _RUNS, first: Iterable[float] = ()) -> None:
        self._latest: deque[float] = deque(first, maxlen=most)
        self._ranked: list[float] = sorted(self._latest)
        self._share = share
        self.value = 0.0
        self.updated = -math.inf

    def add(self, value: float, now: float) -> None:
        ranked, latest = self._ranked, self._latest
        if len(latest) == latest.maxlen:
            del ranked[bisect_left(ranked, latest[0])]
        latest.append(value)
        insort(ranked, value)
        self.value, self.updated = ranked[math.ceil(self._share * len(ranked)) - 1], now


class RunCosts:
    """Seconds of runs of each group (a beam width, a history length), by the number of their rows.

    Written by the threads that run, read by the event loop: what is there is only ever replaced.
    """

    def __init__(self, batch_max: int, clock: Callable[[], float]) -> None:
        self._batch_max = batch_max
        self._clock = clock
        self._places = [_place(rows) for rows in range(batch_max + 1)]
        self._groups: dict[Hashable, list[RunningQuantile]] = {}

    def ran(self, group: Hashable, rows: int, seconds: float) -> None:
        """A run of so many rows took so long, whatever came of it."""
        sizes = self._groups.get(group)
        if sizes is None:
            sizes = self._groups[group] = [RunningQuantile() for _ in range(self._places[-1] + 1)]
        place, now = self._places[rows], self._clock()
        if now - sizes[place].updated >= _FORGET_S:
            sizes[place] = RunningQuantile()
        sizes[place].add(seconds, now)

    def run_s(self, group: Hashable, rows: int) -> float:
        """What a run of so many rows takes; 0 where nothing was measured yet.

        A size that was never run may cost no more than one half as large, and beyond that in proportion: batches grow
        into what they cost instead of being refused for what they might. A group that was never run may cost half of
        the cheapest one that was: enough that a slow model is not asked for a whole batch of something new.
        """
        known = self._known_s(group, rows)
        if known is None:
            others = (self._known_s(other, rows) for other in list(self._groups))
            known = _NEW * min((cost for cost in others if cost is not None), default=0.0)
        return known

    def known(self, group: Hashable) -> bool:
        """Whether a run of the group was measured lately."""
        return self._known_s(group, 1) is not None

    def measured(self, group: Hashable) -> float:
        """When a run of the group last ended."""
        return max((size.updated for size in self._groups.get(group, ())), default=-math.inf)

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

    def drain_s(self, group: Hashable, jobs: int, left_s: float = math.inf) -> float:
        """What so many jobs of a group take, in as few runs as possible: as many to a run as are in time for the first
        of them, who has `left_s`."""
        rows = max(1, self.rows_within(group, repeat(left_s, jobs)))
        runs, rest = divmod(jobs, rows)
        return runs * self.run_s(group, rows) + (self.run_s(group, rest) if rest else 0.0)

    def rows_within(self, group: Hashable, spare: Iterable[float]) -> int:
        """How many of the first jobs can share a run that none of them is late for; `spare` are their seconds left, in
        order. 0 where the first is too late already, even alone."""
        rows, tightest = 0, math.inf
        for left in spare:
            tightest = min(tightest, left)
            if rows >= self._batch_max or with_headroom(self.run_s(group, rows + 1)) > tightest:
                break
            rows += 1
        return rows


def _place(rows: int) -> int:
    """Sizes whose costs are taken together: two to each doubling (1, 2, 3, 4, 5–6, 7–9, …)."""
    return round(2.0 * math.log2(max(1, rows)))
