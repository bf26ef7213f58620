"""The filters that an engine holds, as the service sees them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from service.artifact.array_types import BoolArray
from service.artifact.items.filter_conditions import Filters


class HeldFilter(Protocol):
    """A filter that the engine can decode with."""

    @property
    def id(self) -> int:
        """The number for `ListRequest.filter_id`."""
        ...

    @property
    def allowed(self) -> BoolArray:
        """[items] whether each item is allowed."""
        ...


@dataclass(frozen=True, slots=True)
class FilterUsage:
    """What an engine holds of filters.

    Attributes:
        held: Number of filters.
        bytes: Their size in memory.
        evicted: Filters that were dropped so far to make room for others.
    """

    held: int
    bytes: int
    evicted: int


class FilterMasks(Protocol):
    """The filters that an engine holds. Safe to call from several threads."""

    def held(self, values: Filters) -> HeldFilter | None:
        """Returns a filter if the engine holds it; it counts as used now."""
        ...

    def build(self, values: Filters, owner: str = "") -> HeldFilter:
        """Returns a filter, and builds it if it is new, which takes long for a large catalogue.

        Args:
            values: The filter.
            owner: Who wants it. An owner that holds more than half of the memory makes room by its own filters.

        Raises:
            ValueError: No item has such a field.
            FilterNotReady: There is no room for it just now.
        """
        ...

    @property
    def usage(self) -> FilterUsage:
        """What is held."""
        ...
