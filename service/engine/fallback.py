"""The rungs below the model: item-CF over the raw events, then popularity. Each fills its list up to k from the next.

Both read arrays only, so they work whatever else is broken, and all respect the same excluded items. Neither looks at
the whole catalogue: item-CF reads the neighbours of the history, popularity walks down its order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from service.artifact.array_types import BoolArray, FloatArray, IntArray
from service.artifact.item_cf import ItemCF
from service.artifact.item_filters import Allowed
from service.artifact.popularity import Popularity

Source = Literal["gpt4rec", "item_cf", "popular", "repeat"]


@dataclass(frozen=True, slots=True)
class Constraints:
    """What a list may hold.

    Attributes:
        allowed: Whether an item may be in the list; None allows every item.
        excluded: [m] item indices that must not be in the list.
    """

    allowed: Allowed | None
    excluded: IntArray


@dataclass(frozen=True, slots=True)
class RecommendationList:
    """A list of recommendations, best first, and its source.

    Attributes:
        items: [n ≤ k] catalogue indices.
        scores: [n] float32 scores of the source.
        source: What made the list; items that fill it up do not change it.
    """

    items: IntArray
    scores: FloatArray
    source: Source


def empty_list(source: Source) -> RecommendationList:
    """Returns the list of a source under a filter that allows nothing."""
    return RecommendationList(np.zeros(0, np.int64), np.zeros(0, np.float32), source)


@dataclass(frozen=True, slots=True)
class Fallback:
    """Lists without the model.

    Attributes:
        item_cf: Neighbours of every exported item.
        popularity: Popularity of every exported item.
        stand_in: For each item that came after the export, the exported item it is most like. Nothing is known of new
            items yet, so their events count as events of their stand-ins.
    """

    item_cf: ItemCF
    popularity: Popularity
    stand_in: Mapping[int, int] = field(default_factory=dict)

    def by_history(self, history: IntArray, k: int, limits: Constraints) -> RecommendationList:
        """Recommends by item-CF, filled up with popular items; popular items alone if the history has no neighbours.

        Args:
            history: [n] item indices, oldest first; an unknown item is any index outside the catalogue.
            k: Length of the list.
            limits: What it may hold.
        """
        if self.stand_in:
            history = np.array([self.stand_in.get(item, item) for item in history.tolist()], np.int64)
        items, scores = self.item_cf.recommend(history, k, limits.allowed, limits.excluded)
        if not len(items):
            return self.popular(k, limits)
        return self.fill(RecommendationList(items, scores, "item_cf"), k, limits)

    def similar(self, item: int, k: int, allowed: BoolArray | None = None) -> tuple[IntArray, FloatArray]:
        """Finds the nearest neighbours of an item; those of a new item begin with its stand-in.

        Args:
            item: Catalogue index.
            k: Number of neighbours.
            allowed: [items] bool; None allows every item.

        Returns:
            Items [≤ k] and similarities [≤ k].

        Raises:
            IndexError: The item is outside the catalogue.
        """
        stand_in = self.stand_in.get(item)
        if stand_in is None:
            return self.item_cf.similar(item, k, allowed)
        items, similarities = self.item_cf.similar(stand_in, k, allowed)
        if allowed is not None and not allowed[stand_in]:
            return items, similarities
        first = np.ones(1, np.float32) if not len(items) else similarities[:1]
        return np.concatenate([[stand_in], items])[:k], np.concatenate([first, similarities])[:k]

    def popular(self, k: int, limits: Constraints) -> RecommendationList:
        """Recommends the most popular items."""
        items, shares = self.popularity.recommend(k, limits.allowed, limits.excluded)
        return self._with_new(RecommendationList(items, shares, "popular"), k, limits)

    def fill(self, recommended: RecommendationList, k: int, limits: Constraints) -> RecommendationList:
        """Fills a list up to k with popular items, which score no higher than the items before them."""
        items, scores = self.popularity.fill(recommended.items, recommended.scores, k, limits.allowed, limits.excluded)
        if len(scores) > len(recommended.scores) > 0:
            scores[len(recommended.scores) :] = min(0.0, float(recommended.scores.min()))
        return self._with_new(RecommendationList(items, scores, recommended.source), k, limits)

    def _with_new(self, recommended: RecommendationList, k: int, limits: Constraints) -> RecommendationList:
        """Fills up with new items, which come after all others: a list is short only if fewer items are allowed."""
        if len(recommended.items) >= k or not self.stand_in:
            return recommended
        new = np.fromiter(self.stand_in, np.int64, len(self.stand_in))
        if limits.allowed is not None:
            new = new[limits.allowed[new]]
        new = np.setdiff1d(new, np.concatenate([limits.excluded, recommended.items]))[: k - len(recommended.items)]
        last = min(0.0, float(recommended.scores.min(initial=0.0)))
        scores = np.concatenate([recommended.scores, np.full(len(new), last, np.float32)])
        return RecommendationList(np.concatenate([recommended.items, new]), scores, recommended.source)
