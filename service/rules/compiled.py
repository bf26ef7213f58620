"""Rules over the candidates of one list: who is in which set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from service.artifact.array_types import BoolArray, Float64Array, IntArray
from service.artifact.catalogue_item import PATH, longest, path_of, steps_of
from service.artifact.item_filters import Filters
from service.artifact.popularity import Popularity
from service.engine.interface import CatalogueView
from service.rules.problem import Groups, Limit, Problem
from service.rules.ruling import ActiveRule, Ruling
from service.rules.spec import Apart, AtLeast, AtMost, Boost, Pin


@dataclass(frozen=True, slots=True)
class Items:
    """What rules ask about items.

    Attributes:
        catalogue: The items.
        popularity: Which of them have events.
        index: Index of each item by its id.
    """

    catalogue: CatalogueView
    popularity: Popularity
    index: Mapping[str, int]

    def having(self, where: Filters, items: IntArray) -> BoolArray:
        """Returns [n] whether each item is named by a filter; none is by a field that items do not have."""
        try:
            return self.catalogue.filter(where)[items]
        except ValueError:
            return np.zeros(len(items), np.bool_)

    def new(self, items: IntArray) -> BoolArray:
        """Returns [n] whether each item has no event in the data that the model was trained on."""
        share = self.popularity.share
        known = items < len(share)
        found: BoolArray = ~known
        found[known] = share[items[known]] == 0
        return found


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


def compiled(ruling: Ruling, items: Items, candidates: IntArray, k: int) -> list[CompiledRule]:
    """Finds out which candidates each rule is about.

    Args:
        ruling: The rules.
        items: What is known of items.
        candidates: [n] catalogue indices.
        k: Length of the list.
    """
    rules = []
    place_of = {item: place for place, item in enumerate(candidates.tolist())}
    for number, active in enumerate(reversed(ruling.rules)):
        one = CompiledRule(active, 1 << number)
        rule = active.rule
        if isinstance(rule, Pin):
            one.pinned = place_of.get(items.index.get(rule.item, -1))
            one.members = frozenset() if one.pinned is None else frozenset({one.pinned})
        elif isinstance(rule, Boost):
            one.members = _places(items.having(rule.where, candidates))
        elif isinstance(rule, AtLeast):
            one.members = _places(items.new(candidates) if rule.where is None else items.having(rule.where, candidates))
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
    return Problem(keys, stage, limits, [one.groups for one in rules if one.groups is not None], pins)


def _places(mask: BoolArray) -> frozenset[int]:
    return frozenset(np.flatnonzero(mask).tolist())


def _sets(rule: AtMost, items: Items, candidates: IntArray) -> list[frozenset[int]]:
    if rule.where is not None:
        return [_places(items.having(rule.where, candidates))]
    assert rule.each is not None  # noqa: S101 - the rule has one of the two
    found: dict[str, list[int]] = {}
    prefix = rule.prefix or ""
    for place, item in enumerate(candidates.tolist()):
        for value in _counted(rule, items.catalogue, item):
            if value.startswith(prefix):
                found.setdefault(value, []).append(place)
    return [frozenset(places) for places in found.values()]


def _counted(rule: AtMost, catalogue: CatalogueView, item: int) -> Iterable[str]:
    """The values that an item counts for: of category paths, their first steps or the whole."""
    values = catalogue.values(rule.each or "", item)
    if rule.each != "category" or len(values) < 2 or not (paths := catalogue.values(PATH, item)):
        return values
    if rule.depth is None:
        return longest(paths)
    return {path_of(steps_of(path)[: rule.depth]) for path in longest(paths)}


def _groups(rule: Apart, items: Items, candidates: IntArray, place_of: Mapping[int, int]) -> dict[int, int]:
    if rule.items is not None:
        places = (place_of.get(items.index.get(item, -1)) for item in rule.items)
        return {place: group for group, place in enumerate(places) if place is not None}
    found: dict[int, int] = {}
    for group, where in enumerate(rule.groups or ()):
        for place in _places(items.having(where, candidates)):
            found.setdefault(place, group)
    return found
