"""The items as the service shows and filters them, in columns: a million items are arrays, not objects.

A catalogue is immutable. A change while it is served (stock, new items) makes another catalogue over the same columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from service.artifact.array_types import BoolArray, IntArray
from service.artifact.arrays import map_arrays, save_arrays
from service.artifact.columns import Rows, TextIndex, Texts
from service.artifact.facet import Facet, Int32Array
from service.artifact.item_filters import FilteredField, Filters, ItemFilter, filter_key

FACETS = ("category", "brand", "attribute")
# Rows of the item table that are no items: the unknown item and the start token, which follow the trained items. Later
# items take the indices after them, so that no index ever changes its meaning.
RESERVED = 2


@dataclass(frozen=True)
class CatalogueItem:
    """One item.

    Attributes:
        category: The levels of its category, top first, or its tags.
    """

    item_id: str
    title: str | None = None
    category: tuple[str, ...] = ()
    brand: str | None = None
    attributes: tuple[str, ...] = ()

    def facet(self, name: str) -> tuple[str, ...]:
        """Returns the item's values of one of `FACETS`."""
        match name:
            case "category":
                return self.category
            case "brand":
                return () if self.brand is None else (self.brand,)
            case _:
                return self.attributes


@dataclass(frozen=True, eq=False)
class Columns:
    """The exported items."""

    ids: Texts
    index: TextIndex
    titles: Texts
    has_title: BoolArray
    facets: Mapping[str, Facet]

    def item(self, index: int) -> CatalogueItem:
        """Returns one item."""
        brand = next(iter(self.facets["brand"].values(index)), None)
        category, attributes = self.facets["category"].values(index), self.facets["attribute"].values(index)
        return CatalogueItem(self.ids.text(index), self.title(index), category, brand, attributes)

    def title(self, index: int) -> str | None:
        """Returns an item's title, None if it has none."""
        return self.titles.text(index) if self.has_title[index] else None


@dataclass(frozen=True, eq=False)
class Catalogue:
    """Items by index.

    Attributes:
        columns: The N exported items.
        more: Items that came after the export; their indices start at N + RESERVED.
        in_stock: [items] whether an item is in stock; None if all are.
        index: Index of each item by its id.
    """

    columns: Columns = field(repr=False)
    more: tuple[CatalogueItem, ...] = field(default=(), repr=False)
    in_stock: BoolArray | None = field(default=None, repr=False)
    index: Mapping[str, int] = field(init=False, repr=False)
    _late_items: Mapping[str, Mapping[str, IntArray]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        index = _Extended(self.columns.index, self.more, self.first_new) if self.more else self.columns.index
        object.__setattr__(self, "index", index)
        object.__setattr__(self, "_late_items", {name: _by_value(self.more, name, self.first_new) for name in FACETS})

    @classmethod
    def of(cls, items: Sequence[CatalogueItem]) -> Catalogue:
        """Builds a catalogue of items in index order.

        Raises:
            ValueError: Two items share an id.
        """
        ids = Texts.of([item.item_id for item in items])
        if len({item.item_id for item in items}) != len(items):
            raise ValueError("two items of the catalogue share an id")
        titles = Texts.of([item.title or "" for item in items])
        has_title = np.fromiter((item.title is not None for item in items), np.bool_, len(items))
        facets = {name: Facet.of([item.facet(name) for item in items]) for name in FACETS}
        return cls(Columns(ids, TextIndex.of(ids), titles, has_title, facets))

    # -- reading

    def __len__(self) -> int:
        return self.first_new + len(self.more) if self.more else self.n_exported

    @property
    def n_exported(self) -> int:
        """Number of exported items."""
        return len(self.columns.ids)

    @property
    def first_new(self) -> int:
        """Index of the first item that came after the export."""
        return self.n_exported + RESERVED

    @property
    def item_ids(self) -> Sequence[str]:
        """Ids by index; "" at the reserved ones."""
        return Rows(len(self), self.item_id) if self.more else self.columns.ids

    @property
    def items(self) -> Sequence[CatalogueItem]:
        """Items by index; each is built when it is accessed."""
        return Rows(len(self), self.item)

    @property
    def n_categories(self) -> int:
        """Number of different category levels and tags."""
        known = self.columns.facets["category"].index
        return len(known) + sum(value not in known for value in self._late_items["category"])

    def item(self, index: int) -> CatalogueItem:
        """Returns the item with this index; an empty one for a reserved index."""
        return self.columns.item(index) if index < self.n_exported else self._late(index)

    def item_id(self, index: int) -> str:
        """Returns the id of an item."""
        return self.columns.ids.text(index) if index < self.n_exported else self._late(index).item_id

    def title(self, index: int) -> str | None:
        """Returns the title of an item, None if it has none."""
        return self.columns.title(index) if index < self.n_exported else self._late(index).title

    def categories(self, index: int) -> tuple[str, ...]:
        """Returns an item's category levels, top first, or its tags."""
        return self.columns.facets["category"].values(index) if index < self.n_exported else self._late(index).category

    def category(self, index: int) -> str | None:
        """Returns an item's first category level or tag."""
        return next(iter(self.categories(index)), None)

    def _late(self, index: int) -> CatalogueItem:
        return self.more[index - self.first_new] if index >= self.first_new else CatalogueItem("")

    def with_category(self, value: str) -> Int32Array:
        """Returns the exported items with a category level or tag, ascending."""
        return self.columns.facets["category"].items(value)

    def has_value(self, field: str, value: str) -> bool:
        """Returns whether an item, in stock or not, has a value of one of `FACETS`."""
        facet = self.columns.facets.get(field)
        return (facet is not None and value in facet.index) or value in self._late_items.get(field, ())

    def filter(self, filters: Filters) -> ItemFilter:
        """Returns a filter without the values that no item has. It takes a few look-ups, whatever the catalogue's size.

        Raises:
            ValueError: A field is not one of `FACETS`.
        """
        known: dict[str, tuple[str, ...]] = {}
        for name, values in filters.items():
            self._facet(name)
            if has := {value for value in values if self.has_value(name, value)}:
                known[name] = tuple(sorted(has))
        fields = tuple(self._filtered(name, values) for name, values in known.items())
        nothing = len(known) < len(filters)
        return ItemFilter(known, nothing, fields, self.in_stock, filter_key(known))

    def _facet(self, name: str) -> Facet:
        if name not in FACETS:
            raise ValueError(f"unknown filter field {name!r}: items have {', '.join(FACETS)}")
        return self.columns.facets[name]

    def _filtered(self, name: str, values: Sequence[str]) -> FilteredField:
        facet, late = self.columns.facets[name], self._late_items[name]
        codes = np.array([facet.index[value] for value in values if value in facet.index], np.int64)
        parts = [late[value] for value in values if value in late]
        return FilteredField(facet, codes, np.unique(np.concatenate(parts)) if parts else np.zeros(0, np.int64))

    def matches(self, filters: Filters) -> BoolArray | None:
        """Returns which items have, for every field, one of its values; whether they are in stock does not matter.

        Args:
            filters: Values by field; a value that no item has matches none.

        Returns:
            [items] bool; None if there are no filters.

        Raises:
            ValueError: A field is not one of `FACETS`.
        """
        mask: BoolArray | None = None
        for name, values in filters.items():
            facet, late = self._facet(name), self._late_items[name]
            has = np.zeros(len(self), np.bool_)
            for value in values:
                has[facet.items(value)] = True
                if value in late:
                    has[late[value]] = True
            mask = has if mask is None else mask & has
        return mask

    def allowed(self, filters: Filters) -> BoolArray | None:
        """Returns [items] bool, which items match the filters and are in stock; None if all items do."""
        matching = self.matches(filters)
        if matching is None or self.in_stock is None:
            return self.in_stock if matching is None else matching
        return matching & self.in_stock

    # -- another catalogue over the same columns

    def updated(self, more: Sequence[CatalogueItem], out_of_stock: Sequence[int]) -> Catalogue:
        """Returns a catalogue of the exported items and `more`, with `out_of_stock` (indices) out of stock."""
        changed = replace(self, more=tuple(more), in_stock=None)
        if not len(out_of_stock):
            return changed
        in_stock = np.ones(len(changed), np.bool_)
        in_stock[np.asarray(out_of_stock, np.int64)] = False
        in_stock[self.n_exported : self.first_new] = False
        return replace(changed, in_stock=in_stock)

    # -- on disk

    def save(self, path: Path) -> None:
        """Writes the exported items."""
        c = self.columns
        arrays: dict[str, Any] = {"has_title": c.has_title, **c.titles.arrays("title"), **c.ids.arrays("id")}
        arrays |= c.index.arrays("id")
        for name, facet in c.facets.items():
            arrays |= facet.arrays(name)
        save_arrays(path, **arrays)

    @classmethod
    def load(cls, path: Path) -> Catalogue:
        """Maps a file that `save` wrote. Raises ValueError or KeyError for anything else."""
        arrays = map_arrays(path)
        ids, titles = Texts.from_arrays(arrays, "id"), Texts.from_arrays(arrays, "title")
        index = TextIndex.from_arrays(ids, arrays, "id")
        facets = {name: Facet.from_arrays(arrays, name) for name in FACETS}
        lengths = {len(titles), len(arrays["has_title"]), *(len(facet.start) - 1 for facet in facets.values())}
        if lengths != {len(ids)}:
            raise ValueError(f"the columns of {path.name} differ in length")
        return cls(Columns(ids, index, titles, arrays["has_title"].astype(np.bool_), facets))


def _by_value(items: Sequence[CatalogueItem], name: str, first: int) -> dict[str, IntArray]:
    """The indices of items, counted from `first`, by their values of one facet."""
    found: dict[str, list[int]] = {}
    for index, item in enumerate(items, start=first):
        for value in set(item.facet(name)):
            found.setdefault(value, []).append(index)
    return {value: np.array(indices, np.int64) for value, indices in found.items()}


class _Extended(Mapping[str, int]):
    """Indices of exported and later items by id."""

    def __init__(self, exported: TextIndex, more: Sequence[CatalogueItem], first: int) -> None:
        self._exported = exported
        self._more = {item.item_id: index for index, item in enumerate(more, start=first)}

    def get(self, key: Any, default: Any = None) -> Any:
        """Returns the index of an item, or `default`."""
        index = self._exported.get(key)
        return self._more.get(key, default) if index is None else index

    def __getitem__(self, key: str) -> int:
        index = self._exported.get(key)
        return self._more[key] if index is None else int(index)

    def __contains__(self, key: object) -> bool:
        return key in self._exported or key in self._more

    def __iter__(self) -> Iterator[str]:
        yield from self._exported
        yield from self._more

    def __len__(self) -> int:
        return len(self._exported) + len(self._more)
