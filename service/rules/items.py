"""What rules ask about items, remembered for as long as the catalogue stays the same.

The candidates of lists are the same items over and over, so each is looked up once for each question.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from service.artifact.array_types import IntArray
from service.artifact.catalogue_item import FACETS, PATH, longest, path_of, steps_of
from service.artifact.columns import Texts
from service.artifact.item_filters import Filters
from service.artifact.noise import id_hashes
from service.artifact.popularity import Popularity
from service.engine.interface import CatalogueView
from service.rules.spec import AtMost

# Questions, and items of each, that are remembered; callers choose the questions of their requests.
_QUESTIONS_MAX = 64
_ITEMS_MAX = 16_384


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

    def having(self, where: Filters | None, key: str, items: Sequence[int]) -> frozenset[int]:
        """Returns the places of the items that have an attribute.

        Args:
            where: The attribute; None: new to the catalogue, without an event in the data of the training.
            key: The same as a text.
            items: Catalogue indices.
        """
        has = self._answers(key, items, lambda some: self._have(where, some))
        return frozenset(place for place, item in enumerate(items) if has[item])

    def counted(self, rule: AtMost, items: Sequence[int]) -> dict[str, list[int]]:
        """Returns the places of the items that count for each value of the field of a rule."""
        values = self._answers(rule.key, items, lambda some: [tuple(self._values(rule, item)) for item in some])
        found: dict[str, list[int]] = {}
        for place, item in enumerate(items):
            for value in values[item]:
                found.setdefault(value, []).append(place)
        return found

    def facets(self, items: Sequence[int]) -> list[tuple[tuple[str, str], ...]]:
        """Returns the values of all facets of each item, with their names."""
        values = self._answers("facets", items, lambda some: [self._facets(item) for item in some])
        return [values[item] for item in items]

    def hashes(self, items: Sequence[int]) -> IntArray:
        """Returns [n] the hashes of items, from which the noise of sampled lists follows."""
        ids = self.catalogue.item_ids
        known = self._answers("hashes", items, lambda some: id_hashes(Texts.of([ids[i] for i in some])).tolist())
        return np.array([known[item] for item in items], np.int64)

    def _answers(self, key: str, items: Sequence[int], ask: Callable[[list[int]], Iterable[Any]]) -> Mapping[int, Any]:
        """The answer for each of the items; those that are not remembered are asked for together."""
        known = self._remembered.get(key)
        if known is None:
            if len(self._remembered) >= _QUESTIONS_MAX:
                self._remembered.clear()
            known = self._remembered.setdefault(key, {})
        unknown = [item for item in items if item not in known]
        if unknown:
            if len(known) >= _ITEMS_MAX:
                known, unknown = {}, list(items)
                self._remembered[key] = known
            known.update(zip(unknown, ask(unknown), strict=True))
        return known

    def _have(self, where: Filters | None, items: list[int]) -> list[bool]:
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
_OF_CATALOGUE: WeakKeyDictionary[CatalogueView, dict[str, dict[int, Any]]] = WeakKeyDictionary()


def _remembered(catalogue: CatalogueView) -> dict[str, dict[int, Any]]:
    """The answers of a catalogue; they are forgotten with it."""
    with _LOCK:
        return _OF_CATALOGUE.setdefault(catalogue, {})
