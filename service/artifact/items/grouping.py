"""Equal items among many, found by sorting numbers that hold item and place: faster than sorting places by item."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from service.artifact.array_types import Array, BoolArray, Float64Array, IntArray


@dataclass(frozen=True, slots=True)
class Grouping:
    """Items in ascending order, equal ones in the order in which they were given.

    Attributes:
        item: [n] int64 the items.
        place: [n] the place at which each was given.
        first: [n] whether it is the first of its kind.
    """

    item: IntArray
    place: IntArray
    first: BoolArray

    @classmethod
    def of(cls, items: Array) -> Self:
        """Groups integers [n] of less than 2⁴⁰; n is less than 2²³."""
        bits = max(1, len(items) - 1).bit_length()
        key = items.astype(np.int64) << bits
        key |= np.arange(len(items))
        key.sort()
        item = key >> bits
        first = np.empty(len(items), np.bool_)
        first[:1] = True
        np.not_equal(item[1:], item[:-1], out=first[1:])
        return cls(item, key & ((1 << bits) - 1), first)

    @property
    def items(self) -> IntArray:
        """[m] the items, unique and ascending."""
        return self.item[self.first]

    def sums(self, share: Array) -> Float64Array:
        """Returns [m] the sum over each item of the shares [n], in the order in which these were given."""
        slot = np.cumsum(self.first) - 1
        return np.bincount(slot, share.take(self.place)).astype(np.float64, copy=False)
