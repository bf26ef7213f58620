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

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Protocol

import numpy as np

from service.artifact.array_types import Float64Array
from service.rules.scan import Scan
from service.rules.shortage import Shortage, Starved
from service.rules.terms import Mark, Tally, Terms


@dataclass(slots=True)
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


@dataclass(slots=True, eq=False)
class Candidates:
    """What a list is chosen from. More of them may be added behind.

    Attributes:
        keys: [n] what ranks them.
        stage: [n] candidates of a lower stage come first, whatever their keys.
        marks: [n] what they are to the rules.
        queue: Their places in order, those that may be chosen.
        gain: What ranks them at each position; None: their keys do.
    """

    keys: list[float]
    stage: list[int]
    marks: list[Mark]
    queue: list[int]
    gain: Gain | None = None

    def take(self, places: Sequence[int]) -> None:
        """Takes places into the queue."""
        last = self.queue[-1:]
        self.queue += places
        if len(places) == 1 and (not last or self._after(last[0]) <= self._after(places[0])):
            return
        self.queue.sort(key=self.keys.__getitem__, reverse=True)
        self.queue.sort(key=self.stage.__getitem__)

    def _after(self, place: int) -> tuple[int, float]:
        return self.stage[place], -self.keys[place]


# Adds candidates, and returns whether there were any more.
More = Callable[[], bool]


def choose(
    candidates: Candidates, terms: Terms, k: int, pins: Mapping[int, int], more: More = lambda: False
) -> Selection:
    """Chooses a list.

    Args:
        candidates: What it is chosen from.
        terms: What it must obey.
        k: Its length; it is shorter only if there are fewer candidates.
        pins: Place of the candidate at each pinned position.
        more: Called where every candidate breaks a rule that others might keep, or none is left.
    """
    run = _Run(candidates, terms, k, pins)
    run.fill()
    while len(run.places) < k:
        position = len(run.places) + 1
        at, mask = run.next(position)
        if (at == _NONE_LEFT or mask & terms.upper) and more():
            run.enlarge()
            run.fill()
            continue
        if at == _NONE_LEFT and not run.pull_up():
            break
        run.place(at, position, mask)
    return run.ended()


# Looks at single candidates beyond which those of a position are looked at all at once, which takes a while to begin.
LOOKED_AT_MAX = 2_000
_NONE_LEFT, _PINNED = -1, -2


class _Run:
    """One choice, from the top."""

    def __init__(self, candidates: Candidates, terms: Terms, k: int, pins: Mapping[int, int]) -> None:
        self.places: list[int] = []
        self.passed_over: dict[int, int] = {}
        self.broken = 0
        self._candidates, self._terms, self._pins = candidates, terms, dict(pins)
        self._scan: Scan | None = None
        self._looked_at = 0
        self._ends = {end for end in terms.ends if end < k}
        for place in pins.values():
            candidates.queue.remove(place)
        # The last free positions before something that bars candidates is taken back, or the list ends.
        self._last = _last_free(k, pins)
        self._noted = {self._last, *(_last_free(end, pins) for end in self._ends)}
        self._tally = Tally(terms)
        self._shortage = Shortage(terms, k, pins, self._tally) if terms.needs else None
        self._begin()
        for position, place in pins.items():
            if position <= k:  # what is pinned counts from the start
                self._count(place, position)

    def ended(self) -> Selection:
        """Returns the list."""
        self._end_scan()
        return Selection(self.places, self.passed_over, self.broken)

    def enlarge(self) -> None:
        """Goes on with more candidates."""
        self._begin()
        if self._candidates.gain is not None:
            for place in self.places:
                self._candidates.gain.placed(place)

    def _begin(self) -> None:
        # Up to here, all of the queue breaks something and goes on to do so.
        self._barred = 0
        self._end_scan()
        # All of the queue, once it breaks something: what it broke, and its place in the order.
        self._heap: list[tuple[int, int, int]] | None = None
        if self._shortage is not None:
            self._shortage.among(self._candidates.marks)

    def fill(self) -> None:
        """Fills positions while one candidate after another breaks nothing: what `next` and `place` do, in short."""
        queue, marks, pins = self._candidates.queue, self._candidates.marks, self._pins
        if self._ends or self._candidates.gain is not None:
            return
        places, tally, shortage, at = self.places, self._tally, self._shortage, self._barred
        full, n = tally.full, len(queue)
        for position in range(len(places) + 1, self._last):
            if position in pins:
                places.append(pins.pop(position))
                continue
            if shortage is not None and shortage.open and shortage.starved(position) is not None:
                break
            while at < n and not full.isdisjoint(marks[queue[at]].sets):
                at += 1
            if at == n:
                break
            place = queue.pop(at)
            n -= 1
            places.append(place)
            mark = marks[place]
            tally.place(mark.sets, position)
            if mark.named and shortage is not None:
                shortage.place(mark, position)
        self._barred = at

    def next(self, position: int) -> tuple[int, int]:
        """Returns where in the queue stands what comes to a position, and the mask of what it breaks."""
        if position - 1 in self._ends:
            self._tally.behind(position - 1)
            self._barred, self._heap = 0, None
        if position in self._pins:
            return _PINNED, 0
        candidates = self._candidates
        if not candidates.queue:
            return _NONE_LEFT, 0
        if candidates.gain is not None:
            queue = np.array(candidates.queue)
            order = np.lexsort((-candidates.gain.keys()[queue], np.array(candidates.stage)[queue]))
            candidates.queue = queue[order].tolist()
        starved = None if self._shortage is None else self._shortage.starved(position)
        if starved is None and candidates.gain is None and position not in self._noted:
            return self._next_free()
        return self._best(starved)

    def _next_free(self) -> tuple[int, int]:
        """The first candidate of the queue that breaks least, where what is barred now is barred until a window ends.

        What barred those before it is noted when the last position before that end is filled.
        """
        full, marks, queue = self._tally.full, self._candidates.marks, self._candidates.queue
        if not full:
            return 0, 0
        for at in range(self._barred, len(queue)):
            if full.isdisjoint(marks[queue[at]].sets):
                self._barred = at
                return at, 0
        self._barred = len(queue)
        mask_of = self._tally.mask
        if self._heap is None:
            self._heap = [(mask_of(marks[place].sets), order, place) for order, place in enumerate(queue)]
            for mask, _, place in self._heap:
                self._note(place, mask)
            heapify(self._heap)
        while True:
            mask, order, place = heappop(self._heap)
            now = mask_of(marks[place].sets)
            if now == mask:
                self._note(place, mask)
                return queue.index(place), mask
            heappush(self._heap, (now, order, place))

    def _best(self, starved: Starved | None) -> tuple[int, int]:
        """The first candidate of the queue that breaks least, and the mask of what it breaks."""
        marks, full, mask_of, passed_over = self._candidates.marks, self._tally.full, self._tally.mask, self.passed_over
        self._heap = None
        if self._looked_at > LOOKED_AT_MAX:
            if self._scan is None:
                self._scan = Scan(self._terms, marks)
            return self._scan.best(self._candidates.queue, full, starved)
        known: dict[int, int] = {}  # items that are alike to the rules share a mark
        best, least, at = _NONE_LEFT, 0, 0
        for at, place in enumerate(self._candidates.queue):
            mark = marks[place]
            mask = known.get(id(mark), -1)
            if mask < 0:
                mask = 0 if full.isdisjoint(mark.sets) else mask_of(mark.sets)
                if starved is not None:
                    mask |= starved.of(place)
                known[id(mark)] = mask
            if not mask:
                best, least = at, 0
                break
            passed_over[place] = passed_over.get(place, 0) | mask
            if best == _NONE_LEFT or mask < least:
                best, least = at, mask
        self._looked_at += at + 1
        return best, least

    def _end_scan(self) -> None:
        """Notes what kept candidates from positions while there were many of them."""
        if self._scan is not None:
            found = self._scan.passed_over
            for place in np.flatnonzero(found).tolist():
                self._note(place, int(found[place]))
            self._scan = None

    def _note(self, place: int, mask: int) -> None:
        self.passed_over[place] = self.passed_over.get(place, 0) | mask

    def pull_up(self) -> bool:
        """Makes the next pinned candidate the last of the queue, where nothing else is left, if there is one."""
        if not self._pins:
            return False
        self._candidates.queue.append(self._pins.pop(min(self._pins)))
        return True

    def place(self, at: int, position: int, mask: int) -> None:
        """Puts a candidate at a position: the one at this place of the queue, or the pinned one."""
        if at == _PINNED:
            place = self._pins.pop(position)
        else:
            self.broken |= mask
            place = self._candidates.queue.pop(at)
            if 0 <= at < self._barred:
                self._barred -= 1
            self._count(place, position)
        self.places.append(place)
        if self._candidates.gain is not None:
            self._candidates.gain.placed(place)

    def _count(self, place: int, position: int) -> None:
        mark = self._candidates.marks[place]
        if mark.sets:
            self._tally.place(mark.sets, position)
        if self._shortage is not None:
            self._shortage.place(mark, position)


def _last_free(position: int, pins: Container[int]) -> int:
    while position in pins:
        position -= 1
    return position
