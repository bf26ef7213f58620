"""The rungs below the model: item-CF over the raw events, then popularity. Each fills up to k from the next.

Both read arrays only, so they work whatever is broken; one exclude set goes through all of them. Neither looks at the
whole catalogue: item-CF touches the neighbours of the history, popularity walks down its order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from service.artifact.array_types import BoolArray, FloatArray, IntArray
from service.artifact.item_cf import ItemCF
from service.artifact.popularity import Popularity

Source = Literal["gpt4rec", "item_cf", "popular"]


@dataclass(frozen=True, slots=True)
class Constraints:
    """What a list may hold: `allowed` [items] bool (None: everything), and no item of `excluded` [m]."""

    allowed: BoolArray | None
    excluded: IntArray


@dataclass(frozen=True, slots=True)
class RecommendationList:
    """A list and where it came from: `items` [n ≤ k] catalogue indices, `scores` [n], best first."""

    items: IntArray
    scores: FloatArray
    source: Source


@dataclass(frozen=True, slots=True)
class Fallback:
    """`stand_in` gives, for items that came after the export, the exported item each is most like: nothing is known of
    them yet, so their events count as its."""

    item_cf: ItemCF
    popularity: Popularity
    stand_in: Mapping[int, int] = field(default_factory=dict)

    def by_history(self, history: IntArray, k: int, limits: Constraints) -> RecommendationList:
        """Item-CF, filled up with popular items; popular alone where no event of the history has a neighbour.

        `history` [n] item indices, oldest first; an unknown item is any index outside the catalogue.
        """
        if self.stand_in:
            history = np.array([self.stand_in.get(item, item) for item in history.tolist()], np.int64)
        items, scores = self.item_cf.recommend(history, k, limits.allowed, limits.excluded)
        if not len(items):
            return self.popular(k, limits)
        return self.fill(RecommendationList(items, scores, "item_cf"), k, limits)

    def similar(self, item: int, k: int, allowed: BoolArray | None = None) -> tuple[IntArray, FloatArray]:
        """The nearest neighbours of an item, (items [≤ k], similarities [≤ k]); a new item's begin with the one it is
        like.

        Raises IndexError for an item outside the catalogue.
        """
        like = self.stand_in.get(item)
        if like is None:
            return self.item_cf.similar(item, k, allowed)
        items, similarities = self.item_cf.similar(like, k, allowed)
        if allowed is not None and not allowed[like]:
            return items, similarities
        first = np.ones(1, np.float32) if not len(items) else similarities[:1]
        return np.concatenate([[like], items])[:k], np.concatenate([first, similarities])[:k]

    def popular(self, k: int, limits: Constraints) -> RecommendationList:
        items, shares = self.popularity.recommend(k, limits.allowed, limits.excluded)
        return self._with_new(RecommendationList(items, shares, "popular"), k, limits)

    def fill(self, listing: RecommendationList, k: int, limits: Constraints) -> RecommendationList:
        """Completes a list with popular items; what is added scores no higher than what is there."""
        items, scores = self.popularity.fill(listing.items, listing.scores, k, limits.allowed, limits.excluded)
        if len(scores) > len(listing.scores) > 0:
            scores[len(listing.scores) :] = min(0.0, float(listing.scores.min()))
        return self._with_new(RecommendationList(items, scores, listing.source), k, limits)

    def _with_new(self, listing: RecommendationList, k: int, limits: Constraints) -> RecommendationList:
        """New items come after all others: a list is short only where fewer are allowed."""
        if len(listing.items) >= k or not self.stand_in:
            return listing
        new = np.fromiter(self.stand_in, np.int64, len(self.stand_in))
        if limits.allowed is not None:
            new = new[limits.allowed[new]]
        new = np.setdiff1d(new, np.concatenate([limits.excluded, listing.items]))[: k - len(listing.items)]
        last = min(0.0, float(listing.scores.min(initial=0.0)))
        scores = np.concatenate([listing.scores, np.full(len(new), last, np.float32)])
        return RecommendationList(np.concatenate([listing.items, new]), scores, listing.source)
