"""What rules say of a list, and what an item is to them, in numbers that need no table of their own.

A *set* is all items of one value that a rule counts, or of one group that it keeps apart from others. The number of a
set ends with that of its rule, so whatever an item is to rules can be remembered for as long as the catalogue stays the
same, and a list begins without going over its candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from service.rules.limits import UNLIMITED
from service.rules.spec import Apart, AtLeast, AtMost, ListRule, Pin

_RULE_BITS = 6  # three sources of at most 16 rules
# The bits of a set's number that are the number of its rule.
OF_RULE = (1 << _RULE_BITS) - 1


def set_number(rule: int, value: int = 0) -> int:
    """Returns the number of a set of a rule; `value` tells it from the rule's others."""
    return value << _RULE_BITS | rule


class Mark(NamedTuple):
    """What an item is to the rules of a list.

    Attributes:
        sets: The sets of upper limits and the groups that it is in.
        named: Mask of the rules, 1 << n each, whose `where` names it, of `at_least`, `boost` and `bury`.
        raised: Logarithm of how many times all boosts raise it.
    """

    sets: tuple[int, ...] = ()
    named: int = 0
    raised: float = 0.0


class Need(NamedTuple):
    """A lower limit.

    Attributes:
        rule: Number of its rule.
        bit: Bit of the rule in masks of what a list breaks.
        n: The fewest items.
        first: So many first positions.
    """

    rule: int
    bit: int
    n: int
    first: int


@dataclass(frozen=True, slots=True, eq=False)
class Terms:
    """What rules say, by their numbers.

    Attributes:
        bit: Bit of each rule in masks of what a list breaks: a larger one has precedence.
        first: So many first positions; `UNLIMITED` for the whole list.
        high: The most items of each set.
        groups: The groups of rules that keep them apart.
        needs: The lower limits.
        pins: The pins: number of the rule, id of the item, position.
        upper: Mask of the rules that more candidates may help to keep.
        never: The sets that no item may be of.
        ends: The last positions of windows that may be shorter than a list.
        lenient: Whether a lower limit needs no more items than there are candidates for it.
    """

    bit: Sequence[int]
    first: Sequence[int]
    high: Sequence[int]
    groups: Mapping[int, frozenset[int]] = field(default_factory=dict)
    needs: Sequence[Need] = ()
    pins: Sequence[tuple[int, str, int]] = ()
    upper: int = 0
    never: frozenset[int] = frozenset()
    ends: frozenset[int] = frozenset()
    lenient: bool = True

    @classmethod
    def of(cls, rules: Sequence[ListRule]) -> Terms:
        """Returns what rules say, the highest precedence first."""
        bit = [1 << (len(rules) - 1 - number) for number in range(len(rules))]
        first = [getattr(rule, "first", None) or UNLIMITED for rule in rules]
        numbered = list(enumerate(rules))
        return cls(
            bit=bit,
            first=first,
            high=[rule.n if isinstance(rule, AtMost) else UNLIMITED for rule in rules],
            groups={number: _groups(number, rule) for number, rule in numbered if isinstance(rule, Apart)},
            needs=[Need(n, bit[n], rule.n, first[n]) for n, rule in numbered if isinstance(rule, AtLeast)],
            pins=[(number, rule.item, rule.position) for number, rule in numbered if isinstance(rule, Pin)],
            upper=sum(bit[number] for number, rule in numbered if not isinstance(rule, AtLeast)),
            never=frozenset(set_number(n) for n, rule in numbered if isinstance(rule, AtMost) and not rule.n),
            ends=frozenset(first) - {UNLIMITED},
        )


def _groups(number: int, rule: Apart) -> frozenset[int]:
    return frozenset(set_number(number, group) for group in range(len(rule.items or rule.groups or ())))


class Tally:
    """How many items of each set stand in a list so far.

    Attributes:
        full: The sets that have no place left.
        count: Items of each set; there are none of those that are missing.
    """

    __slots__ = ("_taken", "_terms", "count", "full")

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self.full = set(terms.never)
        self.count: dict[int, int] = {}
        self._taken: set[int] = set()

    def place(self, sets: Sequence[int], position: int) -> None:
        """Counts an item of these sets at a position."""
        terms, count = self._terms, self.count
        first, groups = terms.first, terms.groups
        for number in sets:
            rule = number & OF_RULE
            if position > first[rule]:
                continue
            if rule in groups:
                if rule not in self._taken:
                    self._taken.add(rule)
                    self.full |= groups[rule] - {number}
                continue
            there = count[number] = count.get(number, 0) + 1
            if there == terms.high[rule]:
                self.full.add(number)

    def behind(self, position: int) -> None:
        """Forgets the sets that rules about positions up to this one count: they hold no longer."""
        self.full = {number for number in self.full if self._terms.first[number & OF_RULE] > position}

    def mask(self, sets: Sequence[int]) -> int:
        """Returns the mask of the rules that an item of these sets would break."""
        mask, full = 0, self.full
        for number in sets:
            if number in full:
                mask |= self._terms.bit[number & OF_RULE]
        return mask
