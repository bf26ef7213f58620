"""The signal of a user's own items: what was bought often and recently is bought again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from service.artifact.array_types import Float64Array, FloatArray, IntArray
from service.artifact.own_items import OwnItems
from service.signals.interface import Causes
from service.signals.item_values import NO_VALUES, ItemValues
from service.signals.user_history import UserHistory


@dataclass(frozen=True, slots=True)
class OwnItemsSignal:
    """The user's own items: `x(i) = s(i) / max s`, `s(i) = √count(i) · decay^rank(i)`.

    The count is over the log and what was seen before it. The rank is the number of own items with a newer last event.
    Neither depends on where the log begins (but for items that were last seen in the same second).

    Attributes:
        name: Name of the signal.
        parameters: Decay, and the size of the catalogue: items outside have no value, but count for the ranks.
    """

    name: str
    parameters: OwnItems

    def values(self, history: UserHistory) -> ItemValues:
        """Returns the items' values in 0 … 1."""
        items, scores = self._scores(history)
        known = (items >= 0) & (items < self.parameters.n_items)
        if not known.any():
            return NO_VALUES
        scores = scores[known]
        values: FloatArray = (scores / scores.max()).astype(np.float32)
        return ItemValues(items[known], values)

    def causes(self, history: UserHistory, items: IntArray) -> Causes:
        """Returns the items' values, shared out over their events; an entry from before the log has several of them."""
        events: FloatArray = (history.items == items[:, None]).astype(np.float32)
        before = np.where(history.before.items == items[:, None], history.before.counts, 0).astype(np.float32)
        count = events.sum(axis=1) + before.sum(axis=1)
        each = (self.values(history).of(items) / np.maximum(count, 1))[:, None]
        return Causes(events * each, before * each)

    def _scores(self, history: UserHistory) -> tuple[IntArray, Float64Array]:
        """Returns the distinct items [n] in ascending order, and their scores [n] before the division."""
        before = history.before
        items = np.concatenate([before.items, history.items])
        found, last_from_the_end, slot = np.unique(items[::-1], return_index=True, return_inverse=True)
        each = np.concatenate([before.counts, np.ones(len(history), np.int64)])[::-1]
        count = np.bincount(slot, each, minlength=len(found))
        rank = np.empty(len(found), np.int64)
        rank[np.argsort(last_from_the_end, kind="stable")] = np.arange(len(found))
        return found, np.sqrt(count) * self.parameters.decay ** rank.astype(np.float64)
