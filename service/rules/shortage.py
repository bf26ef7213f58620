"""What lower limits still need in a list, and which candidates would starve them.

Nearly always there is room for all that is missing, and nothing has to be told apart: a few sums per position. Where
there is not, one limit that misses items is judged by itself, which is exact; several are judged together by
`service.rules.lower_limits`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from service.rules.limits import Limit
from service.rules.lower_limits import LowerLimits, Work
from service.rules.terms import OF_RULE, Mark, Need, Tally, Terms


@dataclass(frozen=True, slots=True, eq=False)
class Starved:
    """What lower limits lose by candidates.

    Attributes:
        of: Tells the mask of the limits that the candidate at a place would starve.
        each: Tells the masks for many places.
    """

    of: Callable[[int], int]
    each: Callable[[Sequence[int]], list[int]]


class Shortage:
    """The lower limits of one list.

    Attributes:
        open: Those that may still miss items.
    """

    def __init__(self, terms: Terms, k: int, pinned: Iterable[int], tally: Tally) -> None:
        """Begins with an empty list.

        Args:
            terms: What the rules say.
            k: Length of the list.
            pinned: The positions that are pinned.
            tally: What is counted of the list.
        """
        self._terms, self._k, self._tally = terms, k, tally
        self._pinned = tuple(pinned)
        self._work = Work()
        self._marks: Sequence[Mark] = ()
        self._low: dict[int, int] = {}
        self._there = {need.rule: 0 for need in terms.needs}
        self.open: list[Need] = []
        self._around: dict[int, list[int]] | None = None
        self._together: _Together | None = None

    def among(self, marks: Sequence[Mark]) -> None:
        """Says what the candidates are."""
        self._marks = marks
        self._around = self._together = None
        for need in self._terms.needs:
            having = sum([mark.named >> need.rule & 1 for mark in marks]) if self._terms.lenient else need.n
            self._low[need.rule] = min(need.n, need.first, self._k, having)
        self.open = [need for need in self._terms.needs if self._there[need.rule] < self._low[need.rule]]

    def place(self, mark: Mark, position: int) -> None:
        """Counts an item at a position."""
        for need in self._terms.needs if mark.named else ():
            if mark.named >> need.rule & 1 and position <= need.first:
                self._there[need.rule] += 1
                if self._there[need.rule] == self._low[need.rule]:
                    self.open.remove(need)

    def starved(self, position: int) -> Starved | None:
        """Returns what tells the mask of the limits that a candidate would starve; None if none starves any."""
        if not self.open:
            return None
        missing = {n.rule: self._low[n.rule] - self._there[n.rule] for n in self.open if position <= n.first}
        if not missing:
            return None
        nearest = min([need.first for need in self.open if position <= need.first])
        nearest = min(nearest, self._k)
        room = nearest - position - sum([position < pinned <= nearest for pinned in self._pinned])
        if sum(missing.values()) <= room and not self._tight(missing):
            return None
        if len(missing) == 1:
            (one,) = (need for need in self._terms.needs if need.rule in missing)
            return self._starved_of(one, missing[one.rule], room)
        if self._together is None:
            self._together = _Together(self._terms, self._k, self._marks, self._low, self._work)
        free = [place for place in range(1, self._k + 1) if place not in self._pinned]
        return self._together.starved(self._there, self._tally, free, position)

    def _tight(self, missing: dict[int, int]) -> bool:
        """Whether a set that holds those of lower limits could have fewer places left than they miss."""
        for number, inside in self._sets_around().items():
            needed = 0
            for rule in inside:
                needed += missing.get(rule, 0)
            if needed and needed >= self._places_left(number):
                return True
        return False

    def _places_left(self, number: int) -> int:
        return self._terms.high[number & OF_RULE] - self._tally.count.get(number, 0)

    def _sets_around(self) -> Mapping[int, list[int]]:
        """The sets of upper limits that hold those of lower limits, with the numbers of the rules of these."""
        if self._around is None:
            self._around = {}
            for need in self._terms.needs:
                for number in self._outer(need) if self._low[need.rule] else ():
                    self._around.setdefault(number, []).append(need.rule)
        return self._around

    def _outer(self, need: Need) -> set[int]:
        """The sets of upper limits that hold every candidate of a lower one, over as many positions or more."""
        first, groups = self._terms.first, self._terms.groups
        having = [mark.sets for mark in self._marks if mark.named >> need.rule & 1]
        outer = set(having[0]).intersection(*having[1:]) if having else ()
        return {n for n in outer if n & OF_RULE not in groups and first[n & OF_RULE] >= min(need.first, self._k)}

    def _starved_of(self, need: Need, missing: int, room: int) -> Starved:
        """What one limit alone that misses items loses by each candidate."""
        around = self._sets_around().items()
        outer = {number: self._places_left(number) - 1 for number, inside in around if need.rule in inside}

        def starved(place: int) -> int:
            mark = self._marks[place]
            left = missing - (mark.named >> need.rule & 1)
            if left > room:
                return need.bit
            for number in mark.sets if left else ():
                if number in outer and left > outer[number]:
                    return need.bit
            return 0

        def each(places: Sequence[int]) -> list[int]:
            if outer and missing - 1 <= room:
                return [starved(place) for place in places]
            marks, rule, bit = self._marks, need.rule, need.bit
            others, one = (bit if missing > room else 0), (bit if missing - 1 > room else 0)
            return [one if marks[place].named >> rule & 1 else others for place in places]

        return Starved(starved, each)


class _Together:
    """Several lower limits that miss items, judged together."""

    def __init__(self, terms: Terms, k: int, marks: Sequence[Mark], low: Mapping[int, int], work: Work) -> None:
        members: dict[int, list[int]] = {}
        having: dict[int, list[int]] = {need.rule: [] for need in terms.needs}
        for place, mark in enumerate(marks):
            for number in mark.sets:
                members.setdefault(number, []).append(place)
            for rule, places in having.items():
                if mark.named >> rule & 1:
                    places.append(place)
        self._needs = [need for need in terms.needs if low[need.rule]]
        # A set that cannot exceed its limit limits nothing.
        self._sets = [number for number, places in members.items() if len(places) > terms.high[number & OF_RULE]]
        limits = [
            Limit(need.bit, frozenset(having[need.rule]), min(need.first, k), low=low[need.rule])
            for need in self._needs
        ]
        for number in self._sets:
            rule = number & OF_RULE
            limits.append(
                Limit(terms.bit[rule], frozenset(members[number]), min(terms.first[rule], k), high=terms.high[rule])
            )
        kinds: dict[tuple[int, ...], int] = {}
        of_place: list[list[int]] = [[] for _ in marks]
        for number, limit in enumerate(limits):
            for place in limit.members:
                of_place[place].append(number)
        self._kind = [kinds.setdefault(tuple(of), len(kinds)) for of in of_place]
        self._limits = LowerLimits(limits, list(kinds), work)

    def starved(self, there: Mapping[int, int], tally: Tally, free: Sequence[int], position: int) -> Starved | None:
        """Returns what tells the mask of the limits that a candidate would starve; None if none starves any.

        Args:
            there: Items of each lower limit so far, by the number of its rule.
            tally: Items of each set so far.
            free: The positions that are not pinned, ascending.
            position: The position to fill.
        """
        count = [there[need.rule] for need in self._needs] + [tally.count.get(number, 0) for number in self._sets]
        found = self._limits.breaks(count, free, position)
        if found is None:
            return None
        masks, kind = found.tolist(), self._kind
        return Starved(lambda place: masks[kind[place]], lambda places: [masks[kind[place]] for place in places])
