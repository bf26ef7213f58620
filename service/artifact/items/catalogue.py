"""The items as the service shows and filters them, in columns: a million items are arrays, not objects.

A catalogue is immutable. A change while it is served (stock, prices, new items, windows that open and close) makes
another catalogue over the same columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from service.artifact.array_types import BoolArray, Float64Array
from service.artifact.items.catalogue_columns import Columns, numbers_of
from service.artifact.items.catalogue_item import CURRENCY, FACETS, NUMBERS, PATH, CatalogueItem, path_of
from service.artifact.items.columns import Rows, TextIndex
from service.artifact.items.facet import Int32Array
from service.artifact.items.filter_conditions import Filters
from service.artifact.items.filtered_fields import FilteredFields
from service.artifact.items.item_filters import ItemFilter
from service.artifact.items.live_facet import LiveFacet

# Rows of the item table that are no items: the unknown item and the start token, which follow the trained items. Later
# items take the indices after them, so that no index ever changes its meaning.
RESERVED = 2


@dataclass(frozen=True, eq=False)
class Catalogue:
    """Items by index.

    Attributes:
        columns: The N exported items.
        more: Items that came after the export; their indices start at N + RESERVED.
        changed: Exported items that are others now, by index.
        in_stock: [items] whether an item may be listed, by its stock and its window; None if all may.
        index: Index of each item by its id.
        facets: The values of each facet by name.
        numbers: [items] float64 of each of `NUMBERS` that an item has; NaN for an item without.
        filtered: What filters test.
    """

    columns: Columns = field(repr=False)
    more: tuple[CatalogueItem, ...] = field(default=(), repr=False)
    changed: Mapping[int, CatalogueItem] = field(default_factory=dict, repr=False)
    in_stock: BoolArray | None = field(default=None, repr=False)
    index: Mapping[str, int] = field(init=False, repr=False)
    facets: Mapping[str, LiveFacet] = field(init=False, repr=False)
    numbers: Mapping[str, Float64Array] = field(init=False, repr=False)
    filtered: FilteredFields = field(init=False, repr=False)

    def __post_init__(self) -> None:
        exported, more, first = self.columns, self.more, self.first_new
        late = {item.item_id: index for index, item in enumerate(more, start=first)}
        index = ExtendedIndex(exported.index, late) if more else exported.index
        facets = {
            name: LiveFacet.of(name, exported.facets.get(name), len(exported), self.changed, more, first)
            for name in (*FACETS, PATH, CURRENCY)
        }
        object.__setattr__(self, "index", index)
        numbers = self._present_numbers()
        object.__setattr__(self, "facets", facets)
        object.__setattr__(self, "numbers", numbers)
        object.__setattr__(self, "filtered", FilteredFields.of(facets, numbers, len(self)))

    @classmethod
    def of(cls, items: Sequence[CatalogueItem]) -> Catalogue:
        """Builds a catalogue of items in index order.

        Raises:
            ValueError: Two items share an id.
        """
        if len({item.item_id for item in items}) != len(items):
            raise ValueError("two items of the catalogue share an id")
        return cls(Columns.of(items))

    # -- reading

    def __len__(self) -> int:
        return self.first_new + len(self.more) if self.more else self.n_exported

    @property
    def n_exported(self) -> int:
        """Number of exported items."""
        return len(self.columns)

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
        return self.facets["category"].n_values()

    def item(self, index: int) -> CatalogueItem:
        """Returns the item with this index; an empty one for a reserved index."""
        return self._other(index) or self.columns.item(index)

    def item_id(self, index: int) -> str:
        """Returns the id of an item."""
        return self.columns.ids.text(index) if index < self.n_exported else self._late(index).item_id

    def title(self, index: int) -> str | None:
        """Returns the title of an item, None if it has none."""
        other = self._other(index)
        return self.columns.title(index) if other is None else other.title

    def categories(self, index: int) -> tuple[str, ...]:
        """Returns an item's category levels, top first, or its tags."""
        other = self._other(index)
        return self.columns.facets["category"].values(index) if other is None else other.category

    def values(self, name: str, index: int) -> tuple[str, ...]:
        """Returns an item's values of one of `FACETS`, or of `PATH`."""
        other = self._other(index)
        if other is not None:
            return other.facet(name)
        facet = self.columns.facets.get(name)
        return () if facet is None else facet.values(index)

    def category(self, index: int) -> str | None:
        """Returns an item's first category level or tag."""
        return next(iter(self.categories(index)), None)

    def _other(self, index: int) -> CatalogueItem | None:
        """The item, if the columns do not hold it as it is."""
        return self.changed.get(index) if index < self.n_exported else self._late(index)

    def _late(self, index: int) -> CatalogueItem:
        return self.more[index - self.first_new] if index >= self.first_new else CatalogueItem("")

    def with_category(self, value: str) -> Int32Array:
        """Returns the exported items with a category level, tag or path, as they were exported, ascending."""
        facets = [self.columns.facets.get(name) for name in (PATH, "category")]
        found = [rows for facet in facets if facet is not None and len(rows := facet.items(value))]
        return found[0] if found else self.columns.facets["category"].items(value)

    def has_path(self, levels: Sequence[str]) -> bool:
        """Returns whether an item is on a category path that begins with the first two of these levels."""
        return self.facets[PATH].knows(path_of(levels[:2]))

    def has_value(self, field: str, value: str) -> bool:
        """Returns whether an item, in stock or not, has a value of one of the fields of texts that filters name."""
        return self.filtered.has_value(field, value)

    def unknown(self, filters: Filters) -> Iterator[str]:
        """Yields what a filter names that no item has: values as `field=value`, and bounds with their field.

        Raises:
            ValueError: Items have no such field.
        """
        return self.filtered.unknown(filters)

    def filter(self, filters: Filters) -> ItemFilter:
        """Returns a filter without the values that no item has. It takes a few look-ups, whatever the catalogue's size.

        Raises:
            ValueError: Items have no such field.
        """
        return self.filtered.filter(filters, self.in_stock)

    def matches(self, filters: Filters) -> BoolArray | None:
        """Returns which items match a filter; whether they are in stock does not matter.

        Args:
            filters: What it says of each field; a value that no item has matches none.

        Returns:
            [items] bool; None if there are no filters.

        Raises:
            ValueError: Items have no such field.
        """
        mask = self.filtered.matches(filters)
        if mask is not None:
            mask[self.n_exported : self.first_new] = False
        return mask

    def allowed(self, filters: Filters) -> BoolArray | None:
        """Returns [items] bool, which items match the filters and are in stock; None if all items do."""
        matching = self.matches(filters)
        if matching is None or self.in_stock is None:
            return self.in_stock if matching is None else matching
        return matching & self.in_stock

    # -- another catalogue over the same columns

    def updated(
        self,
        more: Sequence[CatalogueItem],
        out_of_stock: Sequence[int],
        *,
        changed: Mapping[int, CatalogueItem] | None = None,
        now_ms: float | None = None,
    ) -> Catalogue:
        """Returns a catalogue of the exported items and `more`.

        Args:
            more: The items that came after the export.
            out_of_stock: Indices of items that are not listed, whatever their fields say.
            changed: Exported items as they are now, by index.
            now_ms: Items whose window does not hold this moment, in epoch milliseconds, are not listed. None: windows
                do not count.
        """
        other = replace(self, more=tuple(more), changed=changed or {}, in_stock=None)
        listed = listed_at(other, now_ms)
        if len(out_of_stock):
            listed[np.asarray(out_of_stock, np.int64)] = False
        if listed.all():
            return other
        listed[self.n_exported : self.first_new] = False
        return replace(other, in_stock=listed)

    @property
    def restricted(self) -> bool:
        """Whether the fields of an item may keep it out of lists now or later: a stock, or a window."""
        return any(name in self.numbers for name in NUMBERS[1:])

    def next_change_ms(self, now_ms: float) -> float | None:
        """Returns the next moment at which a window opens or closes, in epoch milliseconds; None if none will."""
        later = [
            float(moments.min())
            for name in NUMBERS[2:]
            if name in self.numbers and len(moments := self.numbers[name][self.numbers[name] > now_ms])
        ]
        return min(later, default=None)

    def _present_numbers(self) -> Mapping[str, Float64Array]:
        """The exported numbers, with those of items that have changed or came later."""
        if not self.more and not self.changed:
            return self.columns.numbers
        places = np.fromiter(self.changed, np.int64, len(self.changed))
        late = [*self.changed.values(), *self.more]
        places = np.concatenate([places, np.arange(self.first_new, self.first_new + len(self.more))])
        numbers = {}
        for name in NUMBERS:
            values = numbers_of(late, name)
            exported = self.columns.numbers.get(name)
            if exported is not None or not np.isnan(values).all():
                column = np.full(len(self), np.nan)
                if exported is not None:
                    column[: self.n_exported] = exported
                column[places] = values
                numbers[name] = column
        return numbers

    # -- on disk

    def save(self, path: Path) -> None:
        """Writes the exported items."""
        self.columns.save(path)

    @classmethod
    def load(cls, path: Path) -> Catalogue:
        """Maps a file that `save` wrote. Raises ValueError or KeyError for anything else."""
        return cls(Columns.load(path))


def listed_at(catalogue: Catalogue, now_ms: float | None) -> BoolArray:
    """Returns [items] bool, which items may be listed at a moment by their stock and window.

    Args:
        catalogue: The items.
        now_ms: The moment, in epoch milliseconds; None: windows do not count.
    """
    # Comparisons with NaN are false, so an item without a number is listed.
    hidden = np.zeros(len(catalogue), np.bool_)
    numbers = catalogue.numbers
    if "stock" in numbers:
        hidden |= numbers["stock"] == 0
    if now_ms is not None:
        if "valid_from_ms" in numbers:
            hidden |= numbers["valid_from_ms"] > now_ms
        if "valid_until_ms" in numbers:
            hidden |= numbers["valid_until_ms"] <= now_ms
    return ~hidden


class ExtendedIndex(Mapping[str, int]):
    """Indices of exported and later items by id.

    Attributes:
        late: Those of later items.
    """

    def __init__(self, exported: TextIndex, late: Mapping[str, int]) -> None:
        self._exported, self.late = exported, late

    def get(self, key: Any, default: Any = None) -> Any:
        """Returns the index of an item, or `default`."""
        index = self._exported.get(key)
        return self.late.get(key, default) if index is None else index

    def __getitem__(self, key: str) -> int:
        index = self._exported.get(key)
        return self.late[key] if index is None else int(index)

    def __contains__(self, key: object) -> bool:
        return key in self._exported or key in self.late

    def __iter__(self) -> Iterator[str]:
        yield from self._exported
        yield from self.late

    def __len__(self) -> int:
        return len(self._exported) + len(self.late)
