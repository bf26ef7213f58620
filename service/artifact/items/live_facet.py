"""One facet of the catalogue as it is served: the exported columns, and what has changed since."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from service.artifact.array_types import BoolArray, IntArray
from service.artifact.items.catalogue_item import CatalogueItem
from service.artifact.items.facet import Facet

_NONE = np.zeros(0, np.int64)
_FEW = 64


@dataclass(frozen=True, slots=True, eq=False)
class LiveFacet:
    """The values of every item.

    Attributes:
        facet: The values of the N exported items; None if none of them has any.
        replaced: [r] exported items that have other values now, ascending: their columns do not count.
        late: Items by value, ascending: those of `replaced`, and items that came after the export.
        n_exported: N.
    """

    facet: Facet | None
    replaced: IntArray
    late: Mapping[str, IntArray]
    n_exported: int

    @classmethod
    def of(
        cls,
        name: str,
        facet: Facet | None,
        n_exported: int,
        changed: Mapping[int, CatalogueItem],
        more: Sequence[CatalogueItem],
        first_new: int,
    ) -> Self:
        """Puts a facet together.

        Args:
            name: Its name, for `CatalogueItem.facet`.
            facet: The exported values.
            n_exported: Number of exported items.
            changed: Exported items as they are now, by index.
            more: Items that came after the export.
            first_new: Index of the first of them.
        """
        other = {
            index: values
            for index, item in sorted(changed.items())
            if (values := item.facet(name)) != (() if facet is None else facet.values(index))
        }
        late = [*other.items(), *((index, item.facet(name)) for index, item in enumerate(more, start=first_new))]
        return cls(facet, np.fromiter(other, np.int64, len(other)), _by_value(late), n_exported)

    def following(self, name: str, changes: Iterable[tuple[int, CatalogueItem | None, CatalogueItem]]) -> LiveFacet:
        """Returns the facet after items have changed; the time grows with those, and with the items of their values.

        Args:
            name: Its name, for `CatalogueItem.facet`.
            changes: For each item its index, what it was before (None for a new one), and what it is now.
        """
        replaced, kept = list[int](), list[int]()
        less: dict[str, list[int]] = {}
        more: dict[str, list[int]] = {}
        for index, old, new in changes:
            before, now = () if old is None else old.facet(name), new.facet(name)
            if before == now:
                continue
            exported = None if index >= self.n_exported else () if self.facet is None else self.facet.values(index)
            for values, lists in ((before, less), (now, more)):
                for value in set(values) if values != exported else ():
                    lists.setdefault(value, []).append(index)
            if exported is not None:
                (kept if now == exported else replaced).append(index)
        late = dict(self.late)
        for value in less.keys() | more.keys():
            items = np.setdiff1d(late.pop(value, _NONE), less.get(value, _NONE), assume_unique=True)
            if value in more:
                items = np.union1d(items, np.array(more[value], np.int64))
            if len(items):
                late[value] = items
        others = np.union1d(self.replaced, np.array(replaced, np.int64))
        return LiveFacet(self.facet, np.setdiff1d(others, np.array(kept, np.int64)), late, self.n_exported)

    def knows(self, value: str) -> bool:
        """Returns whether an item has the value."""
        if value in self.late:
            return True
        if self.facet is None or value not in self.facet.index:
            return False
        items = self.facet.items(value)
        if not len(self.replaced):
            return len(items) > 0
        # Nearly always, one of the first few was not replaced.
        return any(not np.isin(some, self.replaced).all() for some in (items[:_FEW], items[_FEW:]))

    def of_any(self, values: Iterable[str]) -> ValueTest:
        """Returns the test for items with one of the values."""
        known = list(values)
        index = {} if self.facet is None else self.facet.index
        codes = np.array([code for value in known if (code := index.get(value)) is not None], np.int64)
        parts = [self.late[value] for value in known if value in self.late]
        return ValueTest(self, codes, np.unique(np.concatenate(parts)) if parts else _NONE)

    def items(self, value: str) -> IntArray:
        """Returns the items that have a value, ascending."""
        return self.of_any([value]).items()

    def n_values(self) -> int:
        """Returns the number of different values."""
        known = () if self.facet is None else self.facet.index
        return len(known) + sum(value not in known for value in self.late)


@dataclass(frozen=True, slots=True, eq=False)
class ValueTest:
    """Whether items have one of some values.

    Attributes:
        live: The facet.
        codes: [v] places of the values in the exported facet.
        late: [m] items with one of the values that the columns do not know of, ascending.
    """

    live: LiveFacet
    codes: IntArray
    late: IntArray

    @property
    def size(self) -> int:
        """The number of items that pass, or more: those with several of the values count as often."""
        if self.live.facet is None:
            return len(self.late)
        bounds = self.live.facet.item_start
        return int((bounds[self.codes + 1] - bounds[self.codes]).sum()) + len(self.late)

    def items(self) -> IntArray:
        """Returns the items that pass, unique and ascending."""
        return np.unique(np.concatenate([self.late, *self._exported()]))

    def has(self, items: IntArray) -> BoolArray:
        """Returns [n] bool, whether each of the items [n] passes."""
        has: BoolArray = np.isin(items, self.late) if len(self.late) else np.zeros(len(items), np.bool_)
        if self.live.facet is not None and len(self.codes):
            known = items < self.live.n_exported
            if len(self.live.replaced):
                known &= ~np.isin(items, self.live.replaced)
            exported = np.flatnonzero(known)
            has[exported] |= self.live.facet.any_of(items[exported], self.codes)
        return has

    def mask(self, n: int) -> BoolArray:
        """Returns [n] bool, whether each item of the catalogue passes."""
        has = np.zeros(n, np.bool_)
        for items in self._exported():
            has[items] = True
        has[self.late] = True
        return has

    def _exported(self) -> Iterable[IntArray]:
        """The exported items of each value, without those whose values are others now."""
        if self.live.facet is None:
            return
        bounds, item = self.live.facet.item_start, self.live.facet.item
        for code in self.codes:
            items = item[bounds[code] : bounds[code + 1]]
            yield items[~np.isin(items, self.live.replaced)] if len(self.live.replaced) else items


def _by_value(values: Iterable[tuple[int, tuple[str, ...]]]) -> dict[str, IntArray]:
    """The items by value, from the values of each item in ascending order."""
    found: dict[str, list[int]] = {}
    for index, own in values:
        for value in set(own):
            found.setdefault(value, []).append(index)
    return {value: np.array(indices, np.int64) for value, indices in found.items()}
