"""Sparse values of items: what a user signal says of the items that it knows anything of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from service.artifact.array_types import FloatArray, IntArray
from service.artifact.scorers.neighbour_table import sum_by_item


class SignalSums(Protocol):
    """What a user's signals add to the scores of items, packed or not."""

    def __len__(self) -> int:
        """Returns the number of items."""

    def unpacked(self) -> ItemValues:
        """Returns the values."""


@dataclass(frozen=True, slots=True)
class ItemValues:
    """Values of some items; every other item has the value 0.

    Attributes:
        items: [n] int64 catalogue indices, ascending and unique.
        values: [n] float32.
    """

    items: IntArray
    values: FloatArray

    def __len__(self) -> int:
        return len(self.items)

    def of(self, items: IntArray) -> FloatArray:
        """Returns the [m] float32 values of the items [m], in their order."""
        if not len(self.items):
            return np.zeros(len(items), np.float32)
        place = np.minimum(np.searchsorted(self.items, items), len(self.items) - 1)
        return np.where(self.items[place] == items, self.values[place], np.float32(0))

    def unpacked(self) -> ItemValues:
        """Returns the values themselves."""
        return self


@dataclass(frozen=True, slots=True, eq=False)
class PackedValues:
    """Item values that are kept: half the memory, and the same bits when they are unpacked.

    Attributes:
        items: [n] the items in the narrowest type of unsigned integers that holds them.
        values: [n] float32.
    """

    items: npt.NDArray[np.unsignedinteger[Any]]
    values: FloatArray

    @classmethod
    def of(cls, values: ItemValues) -> Self:
        """Packs values."""
        largest = int(values.items[-1]) if len(values) else 0
        return cls(values.items.astype(np.min_scalar_type(largest)), values.values)

    def __len__(self) -> int:
        return len(self.items)

    def unpacked(self) -> ItemValues:
        """Returns the values as they were."""
        return ItemValues(self.items.astype(np.int64), self.values)

    @property
    def nbytes(self) -> int:
        """Memory of the arrays."""
        return self.items.nbytes + self.values.nbytes


NO_VALUES = ItemValues(np.zeros(0, np.int64), np.zeros(0, np.float32))


def weighted_sum(parts: Iterable[tuple[float, ItemValues]], n_items: int) -> ItemValues:
    """Adds up values with weights. Sums are in float64, in the order of the parts, so equal parts give equal bits.

    Args:
        parts: Weight and values of each part. Parts of weight 0 are not looked at.
        n_items: Number of items in the catalogue; more than every index.
    """
    used = [(weight, part) for weight, part in parts if weight and len(part)]
    if not used:
        return NO_VALUES
    flat = np.concatenate([part.items for _, part in used])
    share = np.concatenate([weight * part.values.astype(np.float64) for weight, part in used])
    return ItemValues(*sum_by_item(flat, share, n_items))
