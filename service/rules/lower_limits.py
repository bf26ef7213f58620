"""Which choice would leave too few positions for what lower limits still need.

**What it costs.** Candidates that are in the same limits are alike, so a position has at most one question for each
distinct set of limits. Where the sets of r limits are laminar, there are at most r + 1 of those: a candidate's set
follows from the smallest set that holds it. With l lower and u upper limits a question takes at most l² (1 + u) steps,
so 16 limits make at most 1.3 million over 100 positions. This is never cut: what
`service.rules.selection` guarantees for lower limits is about laminar sets over one window, and holds.

Where sets overlap, or windows differ, there may be as many distinct sets as candidates. Such a list has `Work.STEPS`
steps. Behind them each lower limit is looked at for itself, no longer what several of them need together, and what was
not kept is reported as ever. Steps are counted before they are made and never timed, so a list is the same on every
machine.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from service.artifact.array_types import IntArray
from service.rules.limits import UNLIMITED, Limit


class Work:
    """The steps that one list may take where its limits are best effort.

    Attributes:
        left: Those that are left.
    """

    STEPS = 200_000  # all positions of a list of 100 with five lower limits, however their sets overlap

    def __init__(self) -> None:
        self.left = self.STEPS

    def may(self, steps: int) -> bool:
        """Takes so many steps; returns False if there are not so many left."""
        if steps > self.left:
            return False
        self.left -= steps
        return True


class LowerLimits:
    """The lower limits of a problem, and how their sets lie in each other and in those of upper limits."""

    def __init__(self, limits: Sequence[Limit], kinds: Sequence[Sequence[int]], work: Work) -> None:
        """Finds out how the sets lie.

        Args:
            limits: All limits of the problem.
            kinds: The limits that each kind of candidate is in, by number.
            work: What the list may cost.
        """
        self._limits, self._work = limits, work
        # The highest precedence first: what cannot be had gives way from the other end.
        lower = sorted((n for n, limit in enumerate(limits) if limit.low > 0), key=lambda n: -limits[n].bit)
        self._lower = lower
        self._windows = [
            (window, [n for n in lower if limits[n].first <= window])
            for window in sorted({limits[n].first for n in lower})
        ]
        upper = {
            n: [q for q in lower if limits[q].members <= limit.members and limits[q].first <= limit.first]
            for n, limit in enumerate(limits)
            if limit.high < UNLIMITED and lower
        }
        self._upper = {n: inside for n, inside in upper.items() if inside}
        relevant = frozenset(lower) | frozenset(self._upper)
        owns: dict[frozenset[int], int] = {}
        self._own_of_kind = np.array([owns.setdefault(relevant.intersection(of), len(owns)) for of in kinds], np.int64)
        self._owns = list(owns)
        self._has = np.array([[n in own for n in lower] for own in owns], np.int64).reshape(len(owns), len(lower))
        self._bits = np.array([limits[n].bit for n in lower], np.int64)
        self._needs = _Nested(limits, lower) if _laminar(limits, lower) else _Overlapping(limits, lower)
        self._steps = 0  # of a position; 0 where they are never cut
        if not (isinstance(self._needs, _Nested) and len(self._windows) == 1 and len(owns) <= len(relevant) + 1):
            of_sets = [numbers for _, numbers in self._windows] + list(self._upper.values())
            self._steps = len(owns) * sum(self._needs.steps(len(numbers)) for numbers in of_sets)

    def breaks(self, count: Sequence[int], free: Sequence[int], position: int) -> IntArray | None:
        """Returns the mask of the lower limits that each kind of candidate would starve; None if none starves any.

        Args:
            count: Items of each limit's set so far, pinned ones below included.
            free: The positions that are not pinned, ascending.
            position: The position to fill.
        """
        missing = {number: self._missing(number, count, position) for number in self._lower}
        needed = sum(missing.values())
        behind = bisect_right(free, position)
        # Wherever there is room for all of it, nothing has to be told apart.
        if not needed or (
            not any(missing[number] for inside in self._upper.values() for number in inside)
            and all(needed <= bisect_right(free, window) - behind for window, _ in self._windows if window >= position)
        ):
            return None
        if self._steps and not self._work.may(self._steps):
            room = [bisect_right(free, self._limits[number].first) - behind for number in self._lower]
            of_own = ((np.array(list(missing.values())) - self._has > np.maximum(room, 0)) * self._bits).sum(axis=1)
        else:
            of_own = np.array([self._mask(own, missing, count, free, position) for own in self._owns], np.int64)
        return np.asarray(of_own[self._own_of_kind])

    def _missing(self, number: int, count: Sequence[int], position: int) -> int:
        limit = self._limits[number]
        return max(0, limit.low - count[number]) if position <= limit.first else 0

    def _mask(
        self, own: frozenset[int], before: Mapping[int, int], count: Sequence[int], free: Sequence[int], position: int
    ) -> int:
        """The lower limits that can no longer be kept once an item of the sets `own` is placed."""
        missing = {number: max(0, missed - (number in own)) for number, missed in before.items()}
        mask = 0
        behind = bisect_right(free, position)
        for window, numbers in self._windows:
            if window >= position:
                mask |= self._needs.lost(numbers, missing, bisect_right(free, window) - behind)
        for number in own:
            limit = self._limits[number]
            if number in self._upper and position <= limit.first:
                mask |= self._needs.lost(self._upper[number], missing, limit.high - count[number] - 1)
        return mask


class _Nested:
    """What sets of a laminar family need together: exact. A set needs what it misses, or what those in it need."""

    def __init__(self, limits: Sequence[Limit], lower: Sequence[int]) -> None:
        self._limits = limits
        by_size = sorted(lower, key=lambda n: (len(limits[n].members), -n))
        self._parent = {
            a: next((b for b in by_size[place + 1 :] if limits[a].members <= limits[b].members), None)
            for place, a in enumerate(by_size)
        }

    @staticmethod
    def steps(n: int) -> int:
        """The most steps of `lost` for n sets."""
        return n * n

    def lost(self, numbers: Sequence[int], missing: Mapping[int, int], room: int) -> int:
        """The mask of those that find no room beside those of higher precedence, which come first."""
        mask = total = 0
        kept: dict[int, int] = {}
        need = dict.fromkeys(self._parent, 0)
        inside = dict.fromkeys(self._parent, 0)  # the need of the sets directly inside
        for number in numbers:
            if not missing[number]:
                continue
            kept[number] = missing[number]
            path = []
            at: int | None = number
            more = max(0, missing[number] - need[number])
            while at is not None and more:  # up to the outermost set, or one that needs no more for it
                path.append((at, more))
                at = self._parent[at]
                if at is not None:
                    more = max(kept.get(at, 0), inside[at] + more) - need[at]
            if total + (more if at is None else 0) > room:
                mask |= self._limits[number].bit
                del kept[number]
                continue
            total += more if at is None else 0
            for one, of_it in path:
                need[one] += of_it
                parent = self._parent[one]
                if parent is not None:
                    inside[parent] += of_it
        return mask


class _Overlapping:
    """What sets that overlap need together: a lower bound, from those of them that do not meet."""

    def __init__(self, limits: Sequence[Limit], lower: Sequence[int]) -> None:
        self._limits = limits
        # By number, what lies inside and what meets it, as bits of the places in `lower`.
        bit_of = self._bit = {number: 1 << place for place, number in enumerate(lower)}
        self._inside = {a: sum(bit_of[b] for b in lower if b != a and _in(limits[b], limits[a], b, a)) for a in lower}
        self._meets = {
            a: sum(bit_of[b] for b in lower if not limits[a].members.isdisjoint(limits[b].members)) for a in lower
        }
        self._by_size = {n: place for place, n in enumerate(sorted(lower, key=lambda n: len(limits[n].members)))}
        self._needs: dict[tuple[tuple[int, int], ...], int] = {}

    @staticmethod
    def steps(n: int) -> int:
        """The most steps of `lost` for n sets."""
        return n * (n + 1) * (2 * n + 1) // 6

    def lost(self, numbers: Sequence[int], missing: Mapping[int, int], room: int) -> int:
        """The mask of those that find no room beside those of higher precedence, which come first."""
        kept: list[int] = []
        mask = total = 0
        for number in numbers:
            if not missing[number]:
                continue
            # The need is no less than what one set misses, and no more than what all of them miss.
            fits = total + missing[number] <= room
            if not fits and (missing[number] > room or self._need([*kept, number], missing) > room):
                mask |= self._limits[number].bit
            else:
                kept.append(number)
                total += missing[number]
        return mask

    def _need(self, numbers: Sequence[int], missing: Mapping[int, int]) -> int:
        key = tuple((number, missing[number]) for number in numbers)
        if key not in self._needs:
            need: dict[int, int] = {}
            for number in sorted(numbers, key=self._by_size.__getitem__):
                inside = self._inside[number]
                inner = self._disjoint([n for n in need if inside & self._bit[n]], need)
                need[number] = max(missing[number], inner)
            self._needs[key] = self._disjoint(list(need), need)
        return self._needs[key]

    def _disjoint(self, numbers: list[int], need: Mapping[int, int]) -> int:
        """The sum over sets that do not meet, the largest first; a set inside a counted one is counted with it."""
        counted = total = largest = 0
        for number in reversed(numbers):
            own = need[number]
            largest = max(largest, own)
            if not self._meets[number] & counted:
                counted |= self._bit[number]
                total += own
        return max(total, largest)


def _laminar(limits: Sequence[Limit], numbers: Sequence[int]) -> bool:
    """Whether any two sets are disjoint, or one holds the other."""
    pairs = combinations([limits[number].members for number in numbers], 2)
    return all(a <= b or b <= a or a.isdisjoint(b) for a, b in pairs)


def _in(inner: Limit, outer: Limit, inner_number: int, outer_number: int) -> bool:
    """Whether a set lies in another; of equal sets, the later in the earlier."""
    if inner.members == outer.members:
        return inner_number > outer_number
    return inner.members < outer.members
