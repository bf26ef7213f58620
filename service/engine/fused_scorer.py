"""The fused scorer without the network: one score of all other signals.

Its candidates are the items that the signals of the user speak for. If a signal of items counts, as many popular items
as are asked for join them; if none does, items with a score of 0 or less are none. So its cost grows with the
neighbours of the history, not with the catalogue.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np

from service.artifact.array_types import FloatArray, IntArray
from service.artifact.items.item_filters import Allowed, ItemFilter, drop_excluded
from service.artifact.scorers.item_cf import best
from service.artifact.scorers.popularity import Popularity
from service.signals.item_values import ItemValues
from service.signals.ranker import Ranker

# Items that a filter without a mask tests at once, best first.
_TESTED = 512

# Of more items that the user's signals speak for, so many with the largest values are ranked first.
_RANKED_FIRST = 1024

# Candidates that an explanation compares the listed items with.
CANDIDATES_MAX = 4096


@dataclass(frozen=True, eq=False)
class FusedScorer:
    """Scores `s(i) = Σ_f w_f · x_f(i)` over all signals but those of the network.

    Attributes:
        ranker: The signals, with weights that give the network none.
        popularity: The items by popularity.
    """

    ranker: Ranker
    popularity: Popularity

    @classmethod
    def below(cls, ranker: Ranker, popularity: Popularity) -> Self:
        """Returns the scorer for the rung below a model."""
        return cls(ranker.without_network(), popularity)

    def over(self, stand_in: Mapping[int, int]) -> FusedScorer:
        """Returns the same scorer over a catalogue with new items, each with the exported item it is most like."""
        return FusedScorer(self.ranker.over(stand_in), self.popularity)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The signals that count."""
        return self.ranker.used()

    @cached_property
    def bias(self) -> FloatArray | None:
        """[n_items] what the signals of items add; None if none counts."""
        bias = self.ranker.bias()
        return bias if bias.any() else None

    @cached_property
    def _most_added(self) -> np.float32:
        """The most that the signals of items add to a score."""
        return np.float32(0) if self.bias is None else self.bias.max()

    def rank(
        self, values: ItemValues, k: int, allowed: Allowed | None, excluded: IntArray
    ) -> tuple[IntArray, FloatArray]:
        """Returns the best items.

        Args:
            values: What the user's signals add to the scores of items (`Ranker.user`).
            k: Number of items wanted.
            allowed: Whether an item may be returned; None: all may.
            excluded: Items that are not returned.

        Returns:
            Items [≤ k] and their scores [≤ k], best first. There are none if no signal of the user speaks for an item,
            and fewer than k if too few candidates are allowed; `Popularity.fill` completes the list.
        """
        if len(values) > _RANKED_FIRST and k and self.bias is not None and self.ranker.uses_history():
            first, least = _largest(values)
            items, scores = best_allowed(*self._scored(first, values, k, allowed, excluded), k, allowed)
            # No other item reaches more than this, and rounding keeps the order of sums.
            if len(items) == k and scores[-1] > least + self._most_added:
                return items, scores
        return best_allowed(*self._scored(values, values, k, allowed, excluded), k, allowed)

    def candidates(self, values: ItemValues, k: int, allowed: Allowed | None, excluded: IntArray) -> IntArray:
        """Returns the items that `rank` chooses from, at most the `CANDIDATES_MAX` best."""
        return best_allowed(*self._scored(values, values, k, allowed, excluded), CANDIDATES_MAX, allowed)[0]

    def _scored(
        self, part: ItemValues, values: ItemValues, k: int, allowed: Allowed | None, excluded: IntArray
    ) -> tuple[IntArray, FloatArray]:
        """The items in question in ascending order, also such as `allowed` forbids, and their scores.

        `part` of the `values` is ranked; popular items that join have their values from all of them.
        """
        items, scores = part.items, part.values
        if not self.ranker.uses_history():
            items = np.arange(self.ranker.n_items)
            scores = np.zeros(len(items), np.float32) if self.bias is None else self.bias
        elif self.bias is None:
            items, scores = items[scores > 0], scores[scores > 0]  # any other item has 0
        elif len(items):
            popular = np.sort(self.popularity.recommend(k, allowed, excluded)[0])
            place = np.searchsorted(items, popular)
            more = items[np.minimum(place, len(items) - 1)] != popular
            items = np.insert(items, place[more], popular[more])
            scores = np.insert(scores, place[more], values.of(popular[more]))
            scores = scores + self.bias.take(self.ranker.exported(items))
        if len(excluded) and len(items):
            keep = np.ones(len(items), np.bool_)
            drop_excluded(keep, items, excluded)
            items, scores = items[keep], scores[keep]
        return items, scores


def _largest(values: ItemValues) -> tuple[ItemValues, np.float32]:
    """Returns the largest values, about `_RANKED_FIRST`, and the value that none of the others exceeds."""
    place = len(values) - _RANKED_FIRST
    least = np.partition(values.values, place)[place]
    first = np.flatnonzero(values.values > least)
    return ItemValues(values.items.take(first), values.values.take(first)), least


def best_allowed(items: IntArray, scores: FloatArray, k: int, allowed: Allowed | None) -> tuple[IntArray, FloatArray]:
    """Returns the k best of the items that are allowed, best first; ties go to the lower index.

    A filter without a mask is asked only about the items that come into question.

    Args:
        items: [n] items, ascending.
        scores: [n] their scores.
        k: Number of items wanted.
        allowed: Whether an item may be returned; None: all may.
    """
    if isinstance(allowed, ItemFilter):
        order = np.argsort(-scores, kind="stable")
        found: list[IntArray] = []
        for start in range(0, len(order), _TESTED):
            part = order[start : start + _TESTED]
            found.append(part[allowed[items[part]]])
            if sum(map(len, found)) >= k:
                break
        order = np.concatenate([order[:0], *found])[:k]
        return items[order], scores[order]
    if allowed is not None:
        keep = allowed[items]
        items, scores = items[keep], scores[keep]
    return best(items, scores, k)
