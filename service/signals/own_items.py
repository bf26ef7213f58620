"""The signal of a user's own items: what was bought often and recently is bought again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from service.artifact.array_types import Float64Array, FloatArray, IntArray
from service.artifact.scorers.own_items import OwnItems
from service.signals.interface import Causes
from service.signals.item_values import NO_VALUES, ItemValues
from service.signals.user_history import UserHistory

# Keeps most values of the form with rates between −1 and 1, like those of other signals.
SCALE = 4.0


@dataclass(frozen=True, slots=True)
class OwnItemsSignal:
    """The user's own items: `x(i) = s(i) / max s`, `s(i) = √count(i) · decay^rank(i)`.

    With rates of repurchase, how readily each item is taken again by whoever took it,
    `x(i) = (ln s(i) − mean ln s) / SCALE`,
    `s(i) = count(i) · decay^rank(i) · repurchase(i)`. This orders the own items, and leaves how they compare with all
    other items to the form without rates: an item that the user never took lies in the middle of them.

    The count is over the log and what was seen before it. The rank is the number of own items with a newer last event.
    Neither depends on where the log begins (but for items that were last seen in the same second).

    Attributes:
        name: Name of the signal.
        parameters: Decay, and the size of the catalogue: items outside have no value, but count for the ranks.
    """

    name: str
    parameters: OwnItems

    def values(self, history: UserHistory) -> ItemValues:
        """Returns the values of the user's own items."""
        items, scores = self._scores(history)
        known = (items >= 0) & (items < self.parameters.n_items)
        if not known.any():
            return NO_VALUES
        scores = scores[known]
        if self.parameters.repurchase is None:
            scores = scores / scores.max()
        else:
            scores = np.log(scores)
            scores = (scores - scores.mean()) / SCALE
        values: FloatArray = scores.astype(np.float32)
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
        own = history.own
        recency = self.parameters.decay**own.ranks
        rates = self.parameters.repurchase
        if rates is None:
            return own.items, np.sqrt(own.counts) * recency
        return own.items, own.counts * recency * rates.take(own.items, mode="clip")
