"""Rules over the candidates of one list: who is in which set."""

from __future__ import annotations

from collections.abc import Sequence
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
    members: list[list[int]] = [[] for _ in ruling.rules]
    values: dict[tuple[int, str], list[int]] = {}
    groups: list[dict[int, int]] = [{} for _ in ruling.rules]
    for place, mark in enumerate(items.marks(ruling, candidates)):
        for number in mark.rules:
            members[number].append(place)
        for value in mark.values:
            values.setdefault(value, []).append(place)
        for number, group in mark.groups:
            groups[number][place] = group
    place_of = {item: place for place, item in enumerate(candidates)}
    rules = []
    for number, active in enumerate(ruling.rules):
        rule = active.rule
        one = CompiledRule(active, 1 << (len(ruling.rules) - 1 - number), members=frozenset(members[number]))
        first = k if isinstance(rule, Pin | Boost) else min(rule.first or k, k)
        if isinstance(rule, Pin):
            one.pinned = place_of.get(items.index.get(rule.item, -1))
        elif isinstance(rule, AtLeast):
            low = min(rule.n, first, len(one.members))
            one.limits = [Limit(one.bit, one.members, first, low=low)] if low else []
        elif isinstance(rule, AtMost):
            sets = [found for (of, _), found in values.items() if of == number] if rule.each else [members[number]]
            one.limits = [
                Limit(one.bit, frozenset(places), first, high=rule.n) for places in sets if len(places) > rule.n
            ]
        elif isinstance(rule, Apart):
            one.groups = Groups(one.bit, groups[number], first)
        rules.append(one)
    return rules


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
