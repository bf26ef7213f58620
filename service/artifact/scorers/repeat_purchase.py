"""Repeat purchase: recommends a user's own items again, the recently and frequently bought first.

It is the baseline for every log in which people buy the same things again. Like the other scorers it needs numpy only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from service.artifact.array_types import Float64Array, FloatArray, IntArray
from service.artifact.items.item_filters import Allowed

REPEAT = "repeat"
_NOTHING: IntArray = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class Repeat:
    """Scores `score(i) = Σ_j decay^age(j)` over the events j of item i in the history; the newest event has age 0.

    Attributes:
        n_items: Number of items in the catalogue; events of other items score nothing but count for the age.
        decay: Weight of an event relative to the one after it, in (0, 1]; 1 counts events alone.
    """

    n_items: int
    decay: float = 1.0

    def __post_init__(self) -> None:
        """Raises ValueError for a decay outside (0, 1]."""
        if not 0 < self.decay <= 1:
            raise ValueError("decay must be in (0, 1]")

    def recommend(
        self, history: IntArray, k: int, allowed: Allowed | None = None, excluded: IntArray = _NOTHING
    ) -> tuple[IntArray, FloatArray]:
        """Returns the best items of a history; ties go to the item bought later.

        Args:
            history: [events] item indices, oldest first.
            k: Number of items wanted.
            allowed: Whether an item may be returned; None: all may.
            excluded: Items that are not returned.

        Returns:
            Items [≤ k] and their scores [≤ k] > 0, best first. `Popularity.fill` completes a list that is too short.
        """
        weight = self._weights(history)
        known = (history >= 0) & (history < self.n_items)
        items, last, slot = _distinct(history[known])
        scores = np.bincount(slot, weight[known], minlength=len(items))
        keep = ~np.isin(items, excluded)
        if allowed is not None:
            keep &= allowed[items]
        order = np.lexsort((-last[keep], -scores[keep]))[: max(k, 0)]
        return items[keep][order], scores[keep][order].astype(np.float32)

    def shares(self, history: IntArray, items: IntArray) -> Float64Array:
        """Returns the [k, events] float64 terms of the items' scores [k], one of each event of the history."""
        return np.where(history == items[:, None], self._weights(history), 0.0)

    def _weights(self, history: IntArray) -> Float64Array:
        return self.decay ** np.arange(len(history) - 1, -1, -1, dtype=np.float64)


def _distinct(items: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Returns the different items, the last place of each, and the place of every event's item among them."""
    found, first_from_the_end, slot = np.unique(items[::-1], return_index=True, return_inverse=True)
    return found.astype(np.int64), len(items) - 1 - first_from_the_end, slot[::-1]
