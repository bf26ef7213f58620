"""The fields of a catalogue that filters test: what is left of a filter there, and which items match it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from service.artifact.array_types import BoolArray, Float64Array
from service.artifact.items.catalogue_item import PATH, path_of, steps_of
from service.artifact.items.filter_conditions import TEXT_FIELDS, Condition, Filters
from service.artifact.items.item_filters import ItemFilter, filter_key
from service.artifact.items.item_tests import EitherTest, ItemTest, NotTest, RangeTest
from service.artifact.items.live_facet import LiveFacet, ValueTest


@dataclass(frozen=True, eq=False)
class FilteredFields:
    """The fields of the items of one catalogue.

    Attributes:
        facets: The values of each facet by name.
        numbers: [items] float64 of each number that an item has; NaN for an item without.
        n_items: Number of items.
        extents: The least and the greatest value of each number.
    """

    facets: Mapping[str, LiveFacet]
    numbers: Mapping[str, Float64Array]
    n_items: int
    extents: Mapping[str, tuple[float, float]]

    @classmethod
    def of(cls, facets: Mapping[str, LiveFacet], numbers: Mapping[str, Float64Array], n_items: int) -> FilteredFields:
        """Looks the numbers through for their extents, which takes a millisecond for a million items."""
        extents = {
            name: (float(np.fmin.reduce(column)), float(np.fmax.reduce(column)))
            for name, column in numbers.items()
            if len(column)
        }
        return cls(facets, numbers, n_items, extents)

    def has_value(self, name: str, value: str) -> bool:
        """Returns whether an item, in stock or not, has a value of a field of texts; a path counts as one."""
        if name not in TEXT_FIELDS:
            return False
        on_path = name == "category" and len(steps := steps_of(value)) > 1 and self.facets[PATH].knows(path_of(steps))
        return on_path or self.facets[name].knows(value)

    def unknown(self, filters: Filters) -> Iterator[str]:
        """Yields what a filter names that no item has: values as `field=value`, and bounds as `field`.

        Raises:
            ValueError: Items have no such field.
        """
        for name, said in filters.items():
            condition = Condition.of(name, said)
            yield from (f"{name}={value}" for value in condition.values() if not self.has_value(name, value))
            if condition.bounds and not self._within(name, condition):
                yield f"{name} " + " ".join(f"{bound} {value:g}" for bound, value in condition.bounds.items())

    def filter(self, filters: Filters, in_stock: BoolArray | None) -> ItemFilter:
        """Returns a filter without the values that no item has. It takes a few look-ups, whatever the number of items.

        Args:
            filters: What it says of each field.
            in_stock: [items] whether each may be listed; None if all may.

        Raises:
            ValueError: Items have no such field.
        """
        left = {name: self._left(name, Condition.of(name, said)) for name, said in filters.items()}
        known = {name: condition for name, condition in left.items() if condition is not None}
        values = {name: said for name, condition in known.items() if (said := condition.said())}
        tests = tuple(test for name in values for test in self._tests(name, known[name]))
        return ItemFilter(values, len(known) < len(left), tests, in_stock, filter_key(values))

    def matches(self, filters: Filters) -> BoolArray | None:
        """Returns [items] bool, which items match; None if the filter says nothing.

        Raises:
            ValueError: Items have no such field.
        """
        left = self.filter(filters, None)
        if left.nothing:
            return np.zeros(self.n_items, np.bool_)
        mask: BoolArray | None = None
        for test in left.fields:
            has = test.mask(self.n_items)
            mask = has if mask is None else mask & has
        return mask

    def _left(self, name: str, condition: Condition) -> Condition | None:
        """What is left of a condition without unknown values; None if no item can meet it."""
        if condition.bounds:
            return condition if self._within(name, condition) else None
        one = condition.any and tuple(value for value in condition.any if self.has_value(name, value))
        if one == () or not all(self.has_value(name, value) for value in condition.all):
            return None
        return replace(condition, any=one, none=tuple(v for v in condition.none if self.has_value(name, v)))

    def _within(self, name: str, condition: Condition) -> bool:
        return name in self.extents and condition.holds(*self.extents[name])

    def _tests(self, name: str, condition: Condition) -> Iterable[ItemTest]:
        if condition.bounds:
            yield RangeTest(self.numbers[name], condition.bounds)
        if condition.any is not None:
            yield self._of_any(name, condition.any)
        for value in condition.all:
            yield self._of_any(name, (value,))
        if condition.none:
            yield NotTest(self._of_any(name, condition.none))

    def _of_any(self, name: str, values: Iterable[str]) -> ValueTest | EitherTest:
        values = tuple(values)
        tests = [self.facets[name].of_any(values)]
        if name == "category" and (paths := [path_of(steps) for v in values if len(steps := steps_of(v)) > 1]):
            tests.append(self.facets[PATH].of_any(paths))
        return tests[0] if len(tests) == 1 else EitherTest(tuple(tests))
