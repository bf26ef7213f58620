"""Which choice would leave too few positions for what lower limits still need."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence

from service.rules.problem import UNLIMITED, Limit


class LowerLimits:
    """The lower limits of a problem, and how their sets lie in each other and in those of upper limits.

    Args:
        limits: All limits of the problem.
    """

    def __init__(self, limits: Sequence[Limit]) -> None:
        self._limits = limits
        # The highest precedence first: what cannot be had gives way from the other end.
        lower = sorted((n for n, limit in enumerate(limits) if limit.low > 0), key=lambda n: -limits[n].bit)
        self._windows = [
            (window, [n for n in lower if limits[n].first <= window])
            for window in sorted({limits[n].first for n in lower})
        ]
        self._inside = {a: {b for b in lower if b != a and _in(limits[b], limits[a], b, a)} for a in lower}
        self._meets = {(a, b) for a in lower for b in lower if limits[a].members & limits[b].members}
        self._upper = {
            n: [q for q in lower if limits[q].members <= limit.members and limits[q].first <= limit.first]
            for n, limit in enumerate(limits)
            if limit.high < UNLIMITED
        }
        self._upper = {n: inside for n, inside in self._upper.items() if inside}
        self.relevant = frozenset(lower) | frozenset(self._upper)

    def at(self, count: Sequence[int], free: Sequence[int], position: int) -> Starved | None:
        """Returns what tells which candidates leave too few positions; None if no lower limit needs any.

        Args:
            count: Items of each limit's set so far, pinned ones below included.
            free: The positions that are not pinned, ascending.
            position: The position to fill.
        """
        if not self._windows:
            return None
        missing = {number: self._missing(number, count, position) for number in self._windows[-1][1]}
        needed = sum(missing.values())
        behind = bisect_right(free, position)
        # Wherever there is room for all of it, nothing has to be told apart.
        if not needed or (
            not any(missing[number] for inside in self._upper.values() for number in inside)
            and all(needed <= bisect_right(free, window) - behind for window, _ in self._windows if window >= position)
        ):
            return None
        return Starved(self, count, free, position)

    def _missing(self, number: int, count: Sequence[int], position: int) -> int:
        limit = self._limits[number]
        return max(0, limit.low - count[number]) if position <= limit.first else 0

    def mask(self, own: frozenset[int], count: Sequence[int], free: Sequence[int], position: int) -> int:
        """Returns the lower limits that can no longer be kept once an item of the sets `own` is placed."""
        missing = {
            number: max(0, self._missing(number, count, position) - (number in own)) for number in self._windows[-1][1]
        }
        mask = 0
        behind = bisect_right(free, position)
        for window, numbers in self._windows:
            if window >= position:
                mask |= self._lost(numbers, missing, bisect_right(free, window) - behind)
        for number in own:
            limit = self._limits[number]
            if number in self._upper and position <= limit.first:
                mask |= self._lost(self._upper[number], missing, limit.high - count[number] - 1)
        return mask

    def _lost(self, numbers: Sequence[int], missing: Mapping[int, int], room: int) -> int:
        """The mask of those that find no room beside those of higher precedence."""
        kept: list[int] = []
        mask = 0
        for number in numbers:
            if not missing[number]:
                continue
            if self._need([*kept, number], missing) > room:
                mask |= self._limits[number].bit
            else:
                kept.append(number)
        return mask

    def _need(self, numbers: Sequence[int], missing: Mapping[int, int]) -> int:
        """The fewest items that give every set what it misses: exact for laminar sets, else a lower bound."""
        need: dict[int, int] = {}
        for number in sorted(numbers, key=lambda n: len(self._limits[n].members)):
            inner = self._disjoint([n for n in need if n in self._inside[number]], need)
            need[number] = max(missing[number], inner)
        return self._disjoint(list(need), need)

    def _disjoint(self, numbers: list[int], need: Mapping[int, int]) -> int:
        """The sum over sets that do not meet, the largest first; a set inside a counted one is counted with it."""
        counted: list[int] = []
        for number in reversed(numbers):
            if all((number, other) not in self._meets for other in counted):
                counted.append(number)
        return max(sum(need[n] for n in counted), max((need[n] for n in numbers), default=0))


class Starved:
    """Tells at one position which candidates leave too few positions; candidates of the same sets are alike."""

    def __init__(self, limits: LowerLimits, count: Sequence[int], free: Sequence[int], position: int) -> None:
        self._limits, self._count, self._free, self._position = limits, count, free, position
        self._known: dict[frozenset[int], int] = {}

    def of(self, numbers: Sequence[int]) -> int:
        """Returns the mask of the limits that a candidate would starve, by the numbers of the limits it is in."""
        own = self._limits.relevant.intersection(numbers)
        if own not in self._known:
            self._known[own] = self._limits.mask(own, self._count, self._free, self._position)
        return self._known[own]


def _in(inner: Limit, outer: Limit, inner_number: int, outer_number: int) -> bool:
    """Whether a set lies in another; of equal sets, the later in the earlier."""
    if inner.members == outer.members:
        return inner_number > outer_number
    return inner.members < outer.members
