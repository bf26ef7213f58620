"""The rungs below the model: all signals but the network's, then popularity. Each fills its list up to k from the next.

Where no weights were learned for the first, it is item-CF alone. Both read arrays only, so they work whatever else is
broken, and all respect the same excluded items. Signals of the user read the neighbours of the history, popularity
walks down its order; the whole catalogue is scored only where signals of items alone rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from service.artifact.array_types import BoolArray, FloatArray, IntArray
from service.artifact.items.item_filters import Allowed
from service.artifact.scorers.item_cf import ItemCF
from service.artifact.scorers.popularity import Popularity
from service.artifact.scorers.signal_files import ITEM_CF, POPULARITY
from service.engine.candidates import Candidates
from service.engine.draw import Draw
from service.engine.fused_scorer import FusedScorer
from service.engine.rule_report import RuleOutcome
from service.signals.item_values import ItemValues
from service.signals.ranker import Ranker
from service.signals.user_history import UserHistory

Source = Literal["gpt4rec", "item_cf", "popular", "repeat"]
Ordered = Literal["changed", "same"]


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
        items: [n] catalogue indices.
        scores: [n] float32 scores of the source.
        source: What made the list; items that fill it up do not change it.
        scorers: The signals that ranked it.
        candidates: What the model chose it from, if that is known.
        draw: How the model drew it; the items behind those drawn fill it up.
        ordered: Whether an order model put its first items into order, and if it did, whether that changed the list.
        rules: What became of each rule that holds for it.
    """

    items: IntArray
    scores: FloatArray
    source: Source
    scorers: tuple[str, ...] = ()
    candidates: Candidates | None = None
    draw: Draw | None = None
    ordered: Ordered | None = None
    rules: tuple[RuleOutcome, ...] = ()


def only(allowed: BoolArray, items: IntArray) -> BoolArray:
    """Returns which items are allowed, if no others than `items` are."""
    kept = np.zeros(len(allowed), np.bool_)
    inside = items[items < len(allowed)]
    kept[inside] = allowed[inside]
    return kept


def empty_list(source: Source) -> RecommendationList:
    """Returns the list of a source under a filter that allows nothing."""
    return RecommendationList(np.zeros(0, np.int64), np.zeros(0, np.float32), source)


def first_of(listing: RecommendationList, k: int) -> RecommendationList:
    """Returns the first k items of a list, with the law of their draw."""
    if len(listing.items) <= k:
        return listing
    draw = listing.draw
    if draw is not None and draw.log_propensities is not None:
        draw = replace(draw, log_propensities=draw.log_propensities[:k])
    return replace(listing, items=listing.items[:k], scores=listing.scores[:k], draw=draw)


@dataclass(frozen=True, slots=True)
class Fallback:
    """Lists without the model.

    Attributes:
        item_cf: Neighbours of every exported item.
        popularity: Popularity of every exported item.
        fused: The scorer of all signals but the network's; None where no weights were learned for it.
        stand_in: For each item that came after the export, the exported item it is most like. Nothing is known of new
            items yet, so their events count as events of their stand-ins.
    """

    item_cf: ItemCF
    popularity: Popularity
    fused: FusedScorer | None = None
    stand_in: Mapping[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, item_cf: ItemCF, popularity: Popularity, ranker: Ranker) -> Fallback:
        """Returns the rungs below a model: where no weights were learned for them, item-CF ranks alone."""
        fused = FusedScorer.below(ranker, popularity)
        alone = fused.names == (ITEM_CF,) and ranker.weights.without_network[ITEM_CF] > 0
        return cls(item_cf, popularity, None if alone else fused)

    def over(self, stand_in: Mapping[int, int]) -> Fallback:
        """Returns the same scorers over a catalogue with new items, each with the exported item it is most like."""
        fused = None if self.fused is None else self.fused.over(stand_in)
        return replace(self, fused=fused, stand_in=stand_in)

    def by_history(self, history: UserHistory, k: int, limits: Constraints) -> RecommendationList:
        """Recommends by all signals but the network's, or by item-CF alone, filled up with popular items.

        Popular items alone if no signal speaks for an item.

        Args:
            history: What is known of the user.
            k: Length of the list.
            limits: What it may hold.
        """
        if self.fused is not None:
            return self.by_signals(self.fused, self.fused.ranker.user(history), k, limits)
        exported = np.array([self.stand_in.get(item, item) for item in history.items.tolist()], np.int64)
        items, scores = self.item_cf.recommend(exported, k, limits.allowed, limits.excluded)
        if not len(items):
            return self.popular(k, limits)
        return self.fill(RecommendationList(items, scores, "item_cf", (ITEM_CF,)), k, limits)

    def by_signals(self, scorer: FusedScorer, values: ItemValues, k: int, limits: Constraints) -> RecommendationList:
        """Recommends by a fused scorer, filled up with popular items; those alone if no signal speaks for an item.

        Args:
            scorer: The scorer.
            values: What the user's signals add to the scores of items.
            k: Length of the list.
            limits: What it may hold.
        """
        items, scores = scorer.rank(values, k, limits.allowed, limits.excluded)
        if not len(items) or scorer.names in ((), (POPULARITY,)):
            return self.popular(k, limits)
        source: Source = "item_cf" if scorer.ranker.uses_history() else "popular"
        return self.fill(RecommendationList(items, scores, source, scorer.names), k, limits)

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
        return self._with_new(RecommendationList(items, shares, "popular", (POPULARITY,)), k, limits)

    def fill(self, recommended: RecommendationList, k: int, limits: Constraints) -> RecommendationList:
        """Fills a list up to k with popular items, which score no higher than the items before them."""
        items, scores = self.popularity.fill(recommended.items, recommended.scores, k, limits.allowed, limits.excluded)
        if len(scores) > len(recommended.scores) > 0:
            scores[len(recommended.scores) :] = min(0.0, float(recommended.scores.min()))
        return self._with_new(replace(recommended, items=items, scores=scores), k, limits)

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
        return replace(recommended, items=np.concatenate([recommended.items, new]), scores=scores)
