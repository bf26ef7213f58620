"""The rungs below the model: item-CF over the raw events, then popularity. Each fills up to k from the next.

Both read arrays only, so they work whatever is broken; one exclude set goes through all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from export.itemcf import ItemCF, Popularity

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

Source = Literal["gpt4rec", "item_cf", "popular"]


@dataclass(frozen=True, slots=True)
class Constraints:
    """What a list may hold: `allowed` [items] bool (None: everything), and no item of `excluded` [m]."""

    allowed: BoolArray | None
    excluded: IntArray


@dataclass(frozen=True, slots=True)
class Listing:
    """A list and where it came from: `items` [n ≤ k] catalogue indices, `scores` [n], best first."""

    items: IntArray
    scores: FloatArray
    source: Source


@dataclass(frozen=True, slots=True)
class Fallback:
    item_cf: ItemCF
    popularity: Popularity

    def by_history(self, history: IntArray, k: int, limits: Constraints) -> Listing:
        """Item-CF, filled up with popular items; popular alone where no event of the history has a neighbour.

        `history` [n] item indices, oldest first; an unknown item is any index outside the catalogue.
        """
        items, scores = self.item_cf.recommend(history, k, limits.allowed, limits.excluded)
        if not len(items):
            return self.popular(k, limits)
        return self.fill(Listing(items, scores, "item_cf"), k, limits)

    def popular(self, k: int, limits: Constraints) -> Listing:
        items, shares = self.popularity.recommend(k, limits.allowed, limits.excluded)
        return Listing(items, shares, "popular")

    def fill(self, listing: Listing, k: int, limits: Constraints) -> Listing:
        """Completes a list with popular items; what is added scores no higher than what is there."""
        items, scores = self.popularity.fill(listing.items, listing.scores, k, limits.allowed, limits.excluded)
        if len(scores) > len(listing.scores) > 0:
            scores[len(listing.scores) :] = min(0.0, float(listing.scores.min()))
        return Listing(items, scores, listing.source)
