"""The filter language: what a filter says of one field.

    ["Shoes", "Sports > Running"]          one of these values
    {"any": […], "all": […], "none": […]}   one of the first, each of the second, and none of the third
    {"gte": 10, "lt": 50}                   a number inside bounds

Fields are AND-ed. A category that is a path holds for everything below it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from service.artifact.items.catalogue_item import CURRENCY, FACETS

# What a filter says of one field, as JSON has it.
Said = Sequence[str] | Mapping[str, Any]
Filters = Mapping[str, Said]

TEXT_FIELDS = (*FACETS, CURRENCY)
NUMBER_FIELDS = ("price", "stock")
FIELDS = (*TEXT_FIELDS, *NUMBER_FIELDS)
SETS = ("any", "all", "none")
BOUNDS = ("gte", "gt", "lte", "lt")


@dataclass(frozen=True, slots=True)
class Condition:
    """What a filter says of one field.

    Attributes:
        any: Values of which an item has one; None where it need not have any.
        all: Values that an item has, each of them.
        none: Values that an item does not have.
        bounds: Bounds of a number, by their names in `BOUNDS`.
    """

    any: tuple[str, ...] | None = None
    all: tuple[str, ...] = ()
    none: tuple[str, ...] = ()
    bounds: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, said: Said) -> Self:
        """Reads what a filter says of a field.

        Args:
            name: The field.
            said: What it says.

        Raises:
            ValueError: Items have no such field, or it has no such conditions.
        """
        if name not in FIELDS:
            raise ValueError(f"unknown filter field {name!r}: items have {', '.join(FIELDS)}")
        if not isinstance(said, Mapping):
            said = {"any": said}
        allowed = BOUNDS if name in NUMBER_FIELDS else SETS
        if not said or not set(said) <= set(allowed):
            shape = "bounds, such as" if name in NUMBER_FIELDS else "values: a list, or"
            raise ValueError(f"the filter field {name!r} takes {shape} {{{', '.join(allowed)}}}")
        if name in NUMBER_FIELDS:
            return cls(bounds=dict(said))
        one = said.get("any")
        return cls(None if one is None else tuple(one), tuple(said.get("all", ())), tuple(said.get("none", ())))

    def values(self) -> tuple[str, ...]:
        """Returns all values that it names."""
        return (*(self.any or ()), *self.all, *self.none)

    def said(self) -> Said:
        """Returns the same as JSON has it: equal conditions in equal words, whatever the order of their values."""
        if self.bounds:
            return dict(sorted(self.bounds.items()))
        one = None if self.any is None else tuple(sorted(set(self.any)))
        sets = {"any": one, "all": tuple(sorted(set(self.all))), "none": tuple(sorted(set(self.none)))}
        kept = {name: values for name, values in sets.items() if values}
        return kept["any"] or () if set(kept) == {"any"} else kept

    def holds(self, low: float, high: float) -> bool:
        """Returns whether a number from `low` to `high` may lie inside the bounds."""
        outside = {
            "gte": high < self.bounds.get("gte", low),
            "gt": "gt" in self.bounds and high <= self.bounds["gt"],
            "lte": low > self.bounds.get("lte", high),
            "lt": "lt" in self.bounds and low >= self.bounds["lt"],
        }
        return not any(outside.values())
