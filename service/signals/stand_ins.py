"""New items and the exported items that stand in for them, for signals that were fitted before the new ones came."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from service.artifact.array_types import IntArray
from service.signals.item_values import ItemValues
from service.signals.user_history import SeenBefore, UserHistory


@dataclass(frozen=True, slots=True, eq=False)
class StandIns:
    """Items that came after the export.

    Attributes:
        new: [m] their catalogue indices, ascending; all of them come after the exported ones.
        like: [m] the exported item that each is most like.
    """

    new: IntArray
    like: IntArray

    @classmethod
    def of(cls, stand_in: Mapping[int, int]) -> Self:
        """Takes the exported item of each new one, by catalogue index."""
        new = np.array(sorted(stand_in), np.int64)
        return cls(new, np.array([stand_in[item] for item in new.tolist()], np.int64))

    def history(self, history: UserHistory) -> UserHistory:
        """Returns a history in which events of new items are events of their stand-ins."""
        before = history.before  # its entries keep their places, so that causes can name them
        record = SeenBefore(self.exported(before.items), before.counts, before.last_ms)
        return UserHistory(self.exported(history.items), history.times_ms, record)

    def values(self, values: ItemValues) -> ItemValues:
        """Returns the values with those of the new items, which are the values of their stand-ins."""
        own = values.of(self.like)
        has = np.flatnonzero(own)
        return ItemValues(np.concatenate([values.items, self.new[has]]), np.concatenate([values.values, own[has]]))

    def exported(self, items: IntArray) -> IntArray:
        """Returns the items [n] that stand in for items; an exported item stands for itself."""
        place = np.minimum(np.searchsorted(self.new, items), len(self.new) - 1)
        return np.where(self.new[place] == items, self.like[place], items)
