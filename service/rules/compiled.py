"""Rules over the candidates of one list: who is in which set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from service.artifact.array_types import Float64Array, IntArray
from service.rules.items import Items
from service.rules.problem import Groups, Limit, Problem
from service.rules.ruling import ActiveRule, Ruling
from service.rules.spec import Apart, AtLeast, AtMost, Boost, Pin


@dataclass(slots=True, eq=False)
class CompiledRule:
    """A rule over the candidates.

    Attributes:
        active: The rule.
        bit: Its bit in masks.
        limits: Its limits. Those of an `at_most` leave out the sets that cannot exceed it.
        groups: Its groups.
        members: The candidates that it is about.
        pinned: The candidate that it pins; None for another rule, or if the item may not be listed.
    """

    active: ActiveRule
    bit: int
    limits: list[Limit] = field(default_factory=list)
    groups: Groups | None = None
    members: frozenset[int] = frozenset()
    pinned: int | None = None

    def kept(self, places: Sequence[int], k: int) -> bool:
        """Returns whether a list keeps the rule.

        Args:
            places: Its candidates, in order.
            k: Number of items asked for.
        """
        rule = self.active.rule
        if isinstance(rule, Pin):
            at = rule.position - 1
            return rule.position > k or (self.pinned is not None and places[at : at + 1] == [self.pinned])
        if isinstance(rule, AtLeast):
            first = min(rule.first or k, k)
            return len(self.members.intersection(places[:first])) >= min(rule.n, first)
        if self.groups is not None:
            of_place = self.groups.of_place
            return len({of_place[place] for place in places[: self.groups.first] if place in of_place}) <= 1
        return all(len(limit.members.intersection(places[: limit.first])) <= limit.high for limit in self.limits)


def compiled(ruling: Ruling, items: Items, candidates: Sequence[int], k: int) -> list[CompiledRule]:
    """Finds out which candidates each rule is about.

    Args:
        ruling: The rules.
        items: What is known of items.
        candidates: Their catalogue indices.
        k: Length of the list.
    """
    rules = []
    place_of = {item: place for place, item in enumerate(candidates)}
    for number, active in enumerate(reversed(ruling.rules)):
        one = CompiledRule(active, 1 << number)
        rule = active.rule
        if isinstance(rule, Pin):
            one.pinned = place_of.get(items.index.get(rule.item, -1))
            one.members = frozenset() if one.pinned is None else frozenset({one.pinned})
        elif isinstance(rule, Boost):
            one.members = items.having(rule.where, rule.key, candidates)
        elif isinstance(rule, AtLeast):
            one.members = items.having(rule.where, rule.key, candidates)
            first = min(rule.first or k, k)
            low = min(rule.n, first, len(one.members))
            one.limits = [Limit(one.bit, one.members, first, low=low)] if low else []
        elif isinstance(rule, AtMost):
            first = min(rule.first or k, k)
            sets = _sets(rule, items, candidates)
            one.limits = [Limit(one.bit, members, first, high=rule.n) for members in sets if len(members) > rule.n]
        else:
            one.groups = Groups(one.bit, _groups(rule, items, candidates, place_of), min(rule.first or k, k))
        rules.append(one)
    return rules[::-1]


def problem(rules: Sequence[CompiledRule], keys: Float64Array, stage: IntArray, k: int) -> Problem:
    """Returns what a list must obey.

    Args:
        rules: The rules, highest precedence first.
        keys: [n] what ranks the candidates.
        stage: [n] candidates of a lower stage come first.
        k: Length of the list.
    """
    pins: dict[int, int] = {}
    for one in rules:
        rule = one.active.rule
        if not isinstance(rule, Pin) or one.pinned is None or rule.position > k:
            continue
        if rule.position not in pins and one.pinned not in pins.values():
            pins[rule.position] = one.pinned
    limits = [limit for one in rules for limit in one.limits]
    upper = sum(one.bit for one in rules if not isinstance(one.active.rule, AtLeast))
    return Problem(keys, stage, limits, [one.groups for one in rules if one.groups is not None], pins, upper)


def _sets(rule: AtMost, items: Items, candidates: Sequence[int]) -> list[frozenset[int]]:
    if rule.where is not None:
        return [items.having(rule.where, rule.key, candidates)]
    return [frozenset(places) for places in items.counted(rule, candidates).values() if len(places) > rule.n]


def _groups(rule: Apart, items: Items, candidates: Sequence[int], place_of: Mapping[int, int]) -> dict[int, int]:
    if rule.items is not None:
        places = (place_of.get(items.index.get(item, -1)) for item in rule.items)
        return {place: group for group, place in enumerate(places) if place is not None}
    found: dict[int, int] = {}
    for group, (where, key) in enumerate(zip(rule.groups or (), rule.keys, strict=True)):
        for place in items.having(where, key, candidates):
            found.setdefault(place, group)
    return found
