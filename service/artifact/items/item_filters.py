"""Filters of items: what each field must be. What they say is in `service.artifact.items.filter_conditions`.

Callers choose the values, so the values that no item has are dropped before a filter becomes a key or costs anything:
a filter is what is left of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import orjson

from service.artifact.array_types import BoolArray, IntArray
from service.artifact.items.filter_conditions import Condition, Filters
from service.artifact.items.item_tests import EitherTest, ItemTest
from service.artifact.items.live_facet import ValueTest

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
    text = orjson.dumps({name: Condition.of(name, said).said() for name, said in sorted(filters.items())})
    return blake2b(text, digest_size=16).digest()


@dataclass(frozen=True, slots=True, eq=False)
class ItemFilter:
    """A filter over one catalogue, without the values that no item has. It costs nothing until items are tested.

    Attributes:
        values: What it says of each field. A field without any known value is left out: see `nothing`.
        nothing: Whether no item can match: a field has no known value, or no item a number inside the bounds.
        fields: The tests that items must pass.
        in_stock: [items] bool; None when every item is in stock.
        key: `filter_key` of the values.
    """

    values: Filters
    nothing: bool
    fields: tuple[ItemTest, ...]
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
        listed = (field for field in self.fields if isinstance(field, ValueTest | EitherTest))
        smallest = min(listed, key=lambda field: field.size, default=None)
        if self.nothing or smallest is None or smallest.size > _FEW:
            return np.zeros(0, np.int64) if self.nothing else None
        items = smallest.items()
        return items[self[items]]


# Which items may be listed, by catalogue index: a mask [items] bool, or a filter that tests each item.
Allowed = BoolArray | ItemFilter
