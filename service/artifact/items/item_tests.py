"""What a filter tests of items, one test for each thing that it says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from service.artifact.array_types import BoolArray, Float64Array, IntArray
from service.artifact.items.live_facet import ValueTest


class ItemTest(Protocol):
    """A test of items."""

    def has(self, items: IntArray) -> BoolArray:
        """Returns [n] bool, whether each of the items [n] passes; the time grows with n alone."""
        ...

    def mask(self, n: int) -> BoolArray:
        """Returns [n] bool, whether each item of the catalogue passes."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class EitherTest:
    """Whether items pass one of several tests of values."""

    tests: tuple[ValueTest, ...]

    @property
    def size(self) -> int:
        """The number of items that pass, or more."""
        return sum(test.size for test in self.tests)

    def items(self) -> IntArray:
        """Returns the items that pass, unique and ascending."""
        return np.unique(np.concatenate([test.items() for test in self.tests]))

    def has(self, items: IntArray) -> BoolArray:
        """Returns [n] bool, whether each of the items [n] passes."""
        has = self.tests[0].has(items)
        for test in self.tests[1:]:
            has |= test.has(items)
        return has

    def mask(self, n: int) -> BoolArray:
        """Returns [n] bool, whether each item of the catalogue passes."""
        has = self.tests[0].mask(n)
        for test in self.tests[1:]:
            has |= test.mask(n)
        return has


@dataclass(frozen=True, slots=True, eq=False)
class NotTest:
    """Whether items fail a test."""

    test: ItemTest

    def has(self, items: IntArray) -> BoolArray:
        """Returns [n] bool, whether each of the items [n] passes."""
        return ~self.test.has(items)

    def mask(self, n: int) -> BoolArray:
        """Returns [n] bool, whether each item of the catalogue passes."""
        return ~self.test.mask(n)


@dataclass(frozen=True, slots=True, eq=False)
class RangeTest:
    """Whether a number of items lies inside bounds. An item without the number does not pass.

    Attributes:
        numbers: [items] float64, NaN for an item without.
        bounds: The bounds by `gte`, `gt`, `lte` and `lt`.
    """

    numbers: Float64Array
    bounds: Mapping[str, float]

    def has(self, items: IntArray) -> BoolArray:
        """Returns [n] bool, whether each of the items [n] passes."""
        return self._inside(self.numbers[items])

    def mask(self, n: int) -> BoolArray:
        """Returns [n] bool, whether each item of the catalogue passes."""
        return self._inside(self.numbers[:n])

    def _inside(self, values: Float64Array) -> BoolArray:
        inside = np.ones(len(values), np.bool_)
        compare = {"gte": np.greater_equal, "gt": np.greater, "lte": np.less_equal, "lt": np.less}
        for name, bound in self.bounds.items():
            inside &= compare[name](values, bound)
        return inside
