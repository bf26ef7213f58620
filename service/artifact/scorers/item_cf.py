"""Item-to-item collaborative filtering (item-CF): the scorer that answers first when the model cannot.

It needs numpy only. The service falls back to it and the evaluation compares the model with it, through the same code.
Lists are ordered by score, equal scores by the lower index.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from service.artifact.array_types import FloatArray, IntArray
from service.artifact.items.item_filters import Allowed, drop_excluded
from service.artifact.scorers.neighbour_table import NeighbourTable

_NOTHING: IntArray = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class ItemCF(NeighbourTable):
    """Recency-weighted item-CF: a table of similar items that makes lists."""

    def recommend(
        self,
        history: IntArray,
        k: int,
        allowed: Allowed | None = None,
        excluded: IntArray = _NOTHING,
    ) -> tuple[IntArray, FloatArray]:
        """Returns the best items for a history.

        Args:
            history: [events] item indices, oldest first.
            k: Number of items wanted.
            allowed: Whether an item may be returned; None: all may.
            excluded: Items that are not returned. Items of the history are returned unless they are excluded.

        Returns:
            Items [≤ k] and their scores [≤ k] > 0, best first. There are fewer than k if the history has too few
            neighbours; `Popularity.fill` completes the list.
        """
        items, scores = self.sums(history)
        keep = scores > 0
        if allowed is not None:
            keep &= allowed[items]
        drop_excluded(keep, items, excluded)
        return best(items[keep], scores[keep], k)


def best(items: IntArray, scores: FloatArray, k: int) -> tuple[IntArray, FloatArray]:
    """Returns the k highest scores of items given in ascending order; ties go to the lower item."""
    if k <= 0:
        return items[:0], scores[:0]
    if len(items) > k:
        least = np.partition(scores, len(scores) - k)[len(scores) - k]
        candidates = np.flatnonzero(scores >= least)
        items, scores = items[candidates], scores[candidates]
    order = np.argsort(-scores, kind="stable")[:k]
    return items[order], scores[order]
