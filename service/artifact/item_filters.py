"""Filters of items: the allowed values by field. Values of one field are OR-ed, fields are AND-ed.

Callers choose the values, so the values that no item has are dropped before a filter becomes a key or costs anything:
a filter is what is left of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import orjson

from service.artifact.array_types import BoolArray, IntArray
from service.artifact.live_facet import ValueTest

Filters = Mapping[str, Sequence[str]]

# Matching items that are listed one by one where no mask is at hand.
_FEW = 4096


def drop_excluded(keep: BoolArray, items: IntArray, excluded: IntArray) -> None:
    """Clears the marks of excluded items.

    Args:
        keep: [n] a mark for each item; changed in place.
        items: [n] the items, ascending and unique.
        excluded: [m] items, in any order.
    """
    if len(items) and len(excluded):
        place = items.searchsorted(excluded)
        keep[place[items.take(place, mode="clip") == excluded]] = False


def filter_key(filters: Filters) -> bytes:
    """Returns a cache key [16 bytes]: the same for equal filters, whatever the order of their fields and values."""
    text = orjson.dumps({name: sorted(set(values)) for name, values in sorted(filters.items())})
    return blake2b(text, digest_size=16).digest()


@dataclass(frozen=True, slots=True, eq=False)
class ItemFilter:
    """A filter over one catalogue, without the values that no item has. It costs nothing until items are tested.

    Attributes:
        values: The known values by field. A field without any is left out: see `nothing`.
        nothing: Whether a field has no known value, so that no item can match.
        fields: The known values as places in the catalogue.
        in_stock: [items] bool; None when every item is in stock.
        key: `filter_key` of the values.
    """

    values: Filters
    nothing: bool
    fields: tuple[ValueTest, ...]
    in_stock: BoolArray | None
    key: bytes

    def __getitem__(self, items: IntArray, /) -> BoolArray:
        """Returns [n] bool, whether each of the items [n] matches and is in stock; the time grows with n alone."""
        items = np.asarray(items, np.int64)
        allowed = np.full(len(items), not self.nothing, np.bool_) if self.in_stock is None else self.in_stock[items]
        if self.nothing:
            return np.zeros(len(items), np.bool_)
        for field in self.fields:
            allowed = allowed & field.has(items)
        return allowed

    def few(self) -> IntArray | None:
        """Returns all items that match and are in stock, ascending; None if that takes thousands of tests."""
        smallest = min(self.fields, key=lambda field: field.size, default=None)
        if self.nothing or smallest is None or smallest.size > _FEW:
            return np.zeros(0, np.int64) if self.nothing else None
        items = smallest.items()
        return items[self[items]]


# Which items may be listed, by catalogue index: a mask [items] bool, or a filter that tests each item.
Allowed = BoolArray | ItemFilter
