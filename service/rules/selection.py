"""Chooses a list under limits: at each position the best candidate of those that break the least.

**What is guaranteed.** Let the sets of all limits be laminar: any two are disjoint, or one holds the other. Then, if
the candidates have a list of k that keeps every limit, the list that is chosen keeps every limit too, wherever

    (a) there are upper limits alone, each over as many first positions as it likes; or
    (b) all limits, upper and lower, are over the same first positions.

*Argument.* (a) For position p let M_p be the sets of items that keep the limits which reach to p or beyond. Upper
limits over a laminar family are a matroid, and as limits end on the way down, what is independent in M_p is so in
M_(p+1). Let J_1 ⊂ … ⊂ J_k be the first positions of a list that keeps everything, and I the p − 1 items chosen so
far, independent in M_(p−1) and so in M_p. J_p is independent in M_p and has p items, so by augmentation one of them can
be added to I. The choice is never stuck, whatever it took before. (b) Of the sets with lower and upper limits over a
laminar family, those that can be completed to k items which keep all limits are the independent sets of a matroid (the
bases of a generalised matroid; Frank and Tardos, 1988), so the same argument holds if a choice is made among items
that leave the list completable. Over a laminar family that is a count: with need(S) = max(low(S) − chosen in S, Σ need
of the sets directly inside S), a choice is completable if for every S chosen + need of the sets inside is at most
high(S), and need of all sets is at most the free positions. `LowerLimits.breaks` makes exactly these comparisons. The
positions behind the window have no limits. Pinned items count from the start, which only lowers limits (contraction).

Where sets overlap, windows differ beside lower limits, or items must stay apart, the same comparisons are necessary but
not sufficient: the choice is then best effort. A candidate that breaks something has a mask of the limits it breaks,
and the smallest mask is taken, so the rule of highest precedence is the last to give way. k items come in any case.
Work on what is best effort is bounded, and work on what is guaranteed is never cut (`service.rules.lower_limits`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from service.artifact.array_types import Float64Array, IntArray
from service.rules.lower_limits import LowerLimits, Work
from service.rules.problem import Problem


@dataclass(frozen=True, slots=True)
class Selection:
    """A list.

    Attributes:
        places: The candidates chosen, in order.
        passed_over: The limits that kept each candidate from a position that it would have had, as a mask.
        broken: The limits that were broken because every candidate broke some, as a mask.
    """

    places: list[int]
    passed_over: dict[int, int]
    broken: int


class Gain(Protocol):
    """What ranks the candidates anew at each position."""

    def keys(self) -> Float64Array:
        """Returns [n] the keys for the next position."""
        ...

    def placed(self, place: int) -> None:
        """Says which candidate was placed."""
        ...


# Returns the problem with more candidates behind those that it had, and what ranks them; None if there are no more.
More = Callable[[], tuple[Problem, Gain | None] | None]


def select(problem: Problem, k: int, gain: Gain | None = None, more: More = lambda: None) -> Selection:
    """Chooses a list.

    Args:
        problem: Candidates and what the list must obey.
        k: Its length; it is shorter only if there are fewer candidates.
        gain: What ranks the candidates at each position; None: their keys do.
        more: Called where every candidate breaks a rule that others might keep, or none is left.
    """
    run = _Run(problem, k, gain)
    while len(run.places) < k:
        position = len(run.places) + 1
        chosen, mask = run.next(position)
        if (chosen < 0 or mask & run.problem.upper) and (larger := more()) is not None:
            run.enlarge(*larger)
            continue
        if chosen < 0 and (chosen := run.pulled_up()) < 0:
            break
        run.place(chosen, position, mask)
    return Selection(run.places, run.passed_over(), run.broken)


class _Run:
    """One choice, from the top."""

    def __init__(self, problem: Problem, k: int, gain: Gain | None) -> None:
        self.k = k
        self.places: list[int] = []
        self.broken = 0
        self._passed = np.zeros(0, np.int64)
        self._work = Work()
        self.enlarge(problem, gain)

    def passed_over(self) -> dict[int, int]:
        """Returns the limits that kept each candidate from a position, as a mask."""
        passed = np.flatnonzero(self._passed)
        return dict(zip(passed.tolist(), self._passed[passed].tolist(), strict=True))

    def enlarge(self, problem: Problem, gain: Gain | None) -> None:
        """Goes on with a problem of more candidates."""
        self.problem, self._gain = problem, gain
        self._pins = {at: place for at, place in problem.pins.items() if at > len(self.places)}
        self._passed = np.pad(self._passed, (0, len(problem.keys) - len(self._passed)))
        self._counts = _Counts(problem, self.k, self._work)
        there = [*self.places, *problem.pins.values()]
        order = _order(problem.keys, problem.stage)
        self._queue = order[~np.isin(order, there)]
        for position, place in enumerate(self.places, start=1):
            self._count(place, position)

    def next(self, position: int) -> tuple[int, int]:
        """Returns what stands at a position, and the mask of what it breaks; −1 if no candidate is left."""
        if position in self._pins:
            return self._pins[position], 0
        if not len(self._queue):
            return -1, 0
        if self._gain is not None:
            queue = self._queue
            self._queue = queue[_order(self._gain.keys()[queue], self.problem.stage[queue])]
        return self._counts.best(self._queue, position, self._passed)

    def pulled_up(self) -> int:
        """Returns the next pinned candidate, which moves up where nothing else is left; −1 if there is none."""
        return self._pins.pop(min(self._pins)) if self._pins else -1

    def place(self, place: int, position: int, mask: int) -> None:
        """Puts a candidate at a position."""
        self.broken |= mask
        self.places.append(place)
        if self._pins.pop(position, None) is None:
            self._queue = self._queue[self._queue != place]
        self._count(place, position)

    def _count(self, place: int, position: int) -> None:
        if self.problem.pins.get(position) != place:  # what is pinned counts from the start
            self._counts.place(place, position)
        if self._gain is not None:
            self._gain.placed(place)


def _order(keys: Float64Array, stage: IntArray) -> IntArray:
    return np.asarray(np.lexsort((-keys, stage)), np.int64)


class _Counts:
    """How many items of each set stand in the list so far, and what one more would break.

    Candidates of the same sets and groups are alike: they are of one kind, and what they break is found once.
    """

    def __init__(self, problem: Problem, k: int, work: Work) -> None:
        self._limits, self._groups = problem.limits, problem.groups
        n = len(problem.keys)
        self._of_place: list[list[int]] = [[] for _ in range(n)]
        for number, limit in enumerate(self._limits):
            for place in limit.members:
                self._of_place[place].append(number)
        kinds: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = {}
        group_of = [groups.of_place for groups in self._groups]
        self._kind = np.array(
            [
                kinds.setdefault((tuple(of), tuple(one.get(place, -1) for one in group_of)), len(kinds))
                for place, of in enumerate(self._of_place)
            ],
            np.int64,
        )
        self._group_of_kind = np.array([group for _, group in kinds], np.int64).reshape(len(kinds), len(group_of))
        self._kinds_of: list[list[int]] = [[] for _ in self._limits]
        for (of, _), kind in kinds.items():
            for number in of:
                self._kinds_of[number].append(kind)
        self._count = [0] * len(self._limits)
        self._free = [position for position in range(1, k + 1) if position not in problem.pins]
        self._lower = LowerLimits(self._limits, [of for of, _ in kinds], work)
        # What has no place left: kinds, their mask, and the last position that it is about.
        self._bars: list[tuple[IntArray, int, int]] = []
        self._barred = np.zeros(len(kinds), np.int64)
        self._taken: set[int] = set()
        for number, limit in enumerate(self._limits):
            if limit.high < 1:
                self._bar_limit(number)
        for position, place in problem.pins.items():
            if position <= k:
                self.place(place, position)

    def place(self, place: int, position: int) -> None:
        """Counts an item at a position."""
        for number in self._of_place[place]:
            limit = self._limits[number]
            if position <= limit.first:
                self._count[number] += 1
                if self._count[number] == limit.high:
                    self._bar_limit(number)
        for number, groups in enumerate(self._groups):
            group = groups.of_place.get(place)
            if group is not None and position <= groups.first and number not in self._taken:
                self._taken.add(number)
                of_kind = self._group_of_kind[:, number]
                self._bar(np.flatnonzero((of_kind >= 0) & (of_kind != group)), groups.bit, groups.first)

    def _bar_limit(self, number: int) -> None:
        limit = self._limits[number]
        self._bar(np.array(self._kinds_of[number], np.int64), limit.bit, limit.first)

    def _bar(self, kinds: IntArray, bit: int, first: int) -> None:
        self._bars.append((kinds, bit, first))
        self._barred[kinds] |= bit

    def best(self, queue: IntArray, position: int, passed: IntArray) -> tuple[int, int]:
        """Returns the first candidate of the queue that breaks least, and the mask of what it breaks.

        Args:
            queue: Candidates, the best first.
            position: The position to fill.
            passed: [candidates] receives the mask of what kept others from it.
        """
        masks = self._breaks(position)[self._kind[queue]]
        at = int(masks.argmin())
        least = int(masks[at])
        end = len(queue) if least else at
        passed[queue[:end]] |= masks[:end]
        return int(queue[at]), least

    def _breaks(self, position: int) -> IntArray:
        """Returns the mask of what each kind would break at a position."""
        if any(first < position for _, _, first in self._bars):
            bars, self._bars = self._bars, []
            self._barred[:] = 0
            for kinds, bit, first in bars:
                if first >= position:
                    self._bar(kinds, bit, first)
        starved = self._lower.breaks(self._count, self._free, position)
        return self._barred if starved is None else np.asarray(self._barred | starved)
