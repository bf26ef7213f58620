"""A filter as one answer uses it."""

from __future__ import annotations

from dataclasses import dataclass

from service.artifact.items.item_filters import Allowed
from service.engine.jobs import NOTHING


@dataclass(frozen=True, slots=True)
class ListFilter:
    """A filter as one answer uses it.

    Attributes:
        id: The engine's number of it; None if the engine does not hold it, so that only the lower rungs can list.
        allowed: Which items it allows; None for all.
    """

    id: int | None
    allowed: Allowed | None

    @property
    def allows_nothing(self) -> bool:
        """Whether it is known that no item matches, so that the list is empty whatever makes it."""
        return self.id == NOTHING
