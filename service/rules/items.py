"""What rules ask about items, remembered for as long as the catalogue stays the same.

The candidates of lists are the same items over and over, so each is looked up once for each question.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import numpy as np

from service.artifact.array_types import IntArray
from service.artifact.graphs.noise import id_hashes
from service.artifact.items.catalogue_item import FACETS, PATH, longest, path_of, steps_of
from service.artifact.items.columns import Texts
from service.artifact.items.filter_conditions import Filters
from service.artifact.scorers.popularity import Popularity
from service.engine.interface import CatalogueView
from service.rules.answers import Answers
from service.rules.ruling import Ruling
from service.rules.spec import Apart, AtMost, Boost, Pin
from service.rules.terms import Mark, set_number

# Bytes of the answers that are remembered of one catalogue, over all questions: callers choose those of their requests.
_REMEMBERED_MAX = 32 << 20


@dataclass(slots=True)
class _Marking:
    sets: list[int] = field(default_factory=list)
    named: int = 0
    raised: float = 0.0


class Items:
    """The items of one catalogue.

    Attributes:
        catalogue: The items.
        index: Index of each item by its id.
    """

    def __init__(self, catalogue: CatalogueView, popularity: Popularity, index: Mapping[str, int]) -> None:
        """`popularity` says which items have events."""
        self.catalogue, self.index = catalogue, index
        self._share = popularity.share
        self._remembered = _remembered(catalogue)

    def marks(self, ruling: Ruling, items: Sequence[int]) -> list[Mark]:
        """Returns what each item is to the rules."""
        return self._remembered.all_of(ruling.key, items, lambda some: self._marks(ruling, some))

    def facets(self, items: Sequence[int]) -> list[tuple[tuple[str, str], ...]]:
        """Returns the values of all facets of each item, with their names."""
        values = self._remembered.of("facets", items, lambda some: [self._facets(item) for item in some])
        return [values[item] for item in items]

    def hashes(self, items: Sequence[int]) -> IntArray:
        """Returns [n] the hashes of items, from which the noise of sampled lists follows."""
        ids = self.catalogue.item_ids
        known = self._remembered.of("hashes", items, lambda some: id_hashes(Texts.of([ids[i] for i in some])).tolist())
        return np.array([known[item] for item in items], np.int64)

    def _marks(self, ruling: Ruling, items: list[int]) -> list[Mark]:
        marks = [_Marking() for _ in items]
        for number, active in enumerate(ruling.rules):
            rule = active.rule
            if isinstance(rule, Apart):
                self._mark_groups(rule, number, items, marks)
            elif isinstance(rule, AtMost) and rule.where is None:
                for item, mark in zip(items, marks, strict=True):
                    values = dict.fromkeys(self._values(rule, item))
                    mark.sets += [set_number(number, self._remembered.number_of(value)) for value in values]
            elif not isinstance(rule, Pin):
                for has, mark in zip(self._have(rule.where, items), marks, strict=True):
                    if not has:
                        continue
                    if isinstance(rule, AtMost):
                        mark.sets.append(set_number(number))
                    else:
                        mark.named |= 1 << number
                    if isinstance(rule, Boost):
                        mark.raised += math.log(rule.times) * (1.0 if rule.kind == "boost" else -1.0)
        shared = self._remembered.shared
        return [shared(Mark(tuple(sorted(mark.sets)), mark.named, mark.raised)) for mark in marks]

    def _mark_groups(self, rule: Apart, number: int, items: list[int], marks: list[_Marking]) -> None:
        if rule.items is not None:
            group_of = {self.index.get(item): group for group, item in enumerate(rule.items)}
            groups = [group_of.get(item) for item in items]
        else:
            groups = [None] * len(items)
            for group, where in reversed(list(enumerate(rule.groups or ()))):  # the first that names it has it
                has = self._have(where, items)
                groups = [group if yes else before for yes, before in zip(has, groups, strict=True)]
        for found, mark in zip(groups, marks, strict=True):
            if found is not None:
                mark.sets.append(set_number(number, found))

    def _have(self, where: Filters | None, items: list[int]) -> list[bool]:
        """Whether items have an attribute; without one, whether they are new to the catalogue."""
        if where is None:
            return [item >= len(self._share) or not self._share[item] for item in items]
        try:
            has: list[bool] = self.catalogue.filter(where)[np.array(items, np.int64)].tolist()
        except ValueError:
            return [False] * len(items)  # items have no such field
        return has

    def _values(self, rule: AtMost, item: int) -> Iterable[str]:
        """The values that an item counts for: of category paths, their first steps or the whole."""
        values = self.catalogue.values(rule.each or "", item)
        if rule.prefix is not None:
            return [value for value in values if value.startswith(rule.prefix)]
        if rule.each != "category" or len(values) < 2 or not (paths := self.catalogue.values(PATH, item)):
            return values
        if rule.depth is None:
            return longest(paths)
        return {path_of(steps_of(path)[: rule.depth]) for path in longest(paths)}

    def _facets(self, item: int) -> tuple[tuple[str, str], ...]:
        return tuple((name, value) for name in FACETS for value in self.catalogue.values(name, item))


_LOCK = threading.Lock()  # shadows have a thread of their own
_OF_CATALOGUE: WeakKeyDictionary[CatalogueView, Answers] = WeakKeyDictionary()


def _remembered(catalogue: CatalogueView) -> Answers:
    """The answers of a catalogue; they are forgotten with it."""
    with _LOCK:
        found = _OF_CATALOGUE.get(catalogue)
        if found is None:
            found = _OF_CATALOGUE[catalogue] = Answers(_REMEMBERED_MAX)
        return found
