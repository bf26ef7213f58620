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
        # By number, what lies inside and what meets it, as bits of the places in `lower`.
        bit_of = self._bit = {number: 1 << place for place, number in enumerate(lower)}
        self._inside = {a: sum(bit_of[b] for b in lower if b != a and _in(limits[b], limits[a], b, a)) for a in lower}
        self._meets = {
            a: sum(bit_of[b] for b in lower if not limits[a].members.isdisjoint(limits[b].members)) for a in lower
        }
        self._by_size = {n: place for place, n in enumerate(sorted(lower, key=lambda n: len(limits[n].members)))}
        self._needs: dict[tuple[tuple[int, int], ...], int] = {}
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
        """The fewest items that give every set what it misses: exact for laminar sets, else a lower bound."""
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


class Starved:
    """Tells at one position which candidates leave too few positions; candidates of the same sets are alike."""

    def __init__(self, limits: LowerLimits, count: Sequence[int], free: Sequence[int], position: int) -> None:
        self._limits, self._count, self._free, self._position = limits, count, free, position
        self._known: dict[frozenset[int], int] = {}

    def of(self, own: frozenset[int]) -> int:
        """Returns the mask of the limits that a candidate would starve, by those of `relevant` that it is in."""
        if own not in self._known:
            self._known[own] = self._limits.mask(own, self._count, self._free, self._position)
        return self._known[own]


def _in(inner: Limit, outer: Limit, inner_number: int, outer_number: int) -> bool:
    """Whether a set lies in another; of equal sets, the later in the earlier."""
    if inner.members == outer.members:
        return inner_number > outer_number
    return inner.members < outer.members
