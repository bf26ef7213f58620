"""What goes with the items of a basket: by what was in baskets together, else by item-CF, else popular items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from service.artifact.array_types import FloatArray, IntArray
from service.artifact.items.item_filters import drop_excluded
from service.artifact.scorers.neighbour_table import NeighbourTable
from service.engine.fallback import Constraints, Fallback
from service.engine.fused_scorer import best_allowed
from service.signals.user_history import UserHistory

By = Literal["baskets", "item_cf", "popular"]

NO_TABLE = "the artefact does not know what is bought together, as its data have no baskets or it was exported before"
NO_BASKET = "no basket of the data has this item and another one that may be listed"


@dataclass(frozen=True, slots=True)
class Found:
    """Items that go with others.

    Attributes:
        items: [n] catalogue indices, best first.
        scores: [n] float32 their scores, comparable among the items of one source.
        source: What found the first of them.
    """

    items: IntArray
    scores: FloatArray
    source: By


@dataclass(frozen=True, slots=True)
class Companions:
    """Finds items that go with others.

    Attributes:
        table: What is in baskets together; None where that is not known.
        fallback: What else is known of items.
    """

    table: NeighbourTable | None
    fallback: Fallback

    @property
    def why_not(self) -> str:
        """Why baskets found nothing, in a sentence."""
        return NO_TABLE if self.table is None else NO_BASKET

    def of(self, items: IntArray, limits: Constraints, k: int, least: int) -> Found:
        """Returns what goes with items, filled up by what item-CF and popularity list.

        Args:
            items: [m] what is in the basket.
            limits: What may be listed; the basket itself must be excluded.
            k: The most items.
            least: So many are listed if they are allowed, whatever is known of baskets.
        """
        found = self.by_baskets(items, limits, k)
        return found if len(found.items) >= least else self._filled(found, items, limits, least)

    def by_baskets(self, items: IntArray, limits: Constraints, k: int) -> Found:
        """Returns what was in baskets with these items, and nothing else; see `of`."""
        none = Found(np.zeros(0, np.int64), np.zeros(0, np.float32), "baskets")
        if self.table is None:
            return none
        stand_in = self.fallback.stand_in
        exported = np.array([stand_in.get(item, item) for item in items.tolist()], np.int64)
        found, scores = self.table.sums(np.unique(exported))
        kept = np.ones(len(found), np.bool_)
        if len(limits.excluded):
            drop_excluded(kept, found, limits.excluded)
        chosen = best_allowed(found[kept], scores[kept], k, limits.allowed)
        return Found(*chosen, "baskets")

    def _filled(self, found: Found, items: IntArray, limits: Constraints, wanted: int) -> Found:
        """What baskets found, and then what item-CF and popularity list."""
        excluded = np.union1d(limits.excluded, found.items)
        more = self.fallback.by_history(
            UserHistory.of_items(items), wanted - len(found.items), Constraints(limits.allowed, excluded)
        )
        source: By = "baskets" if len(found.items) else "popular" if more.source == "popular" else "item_cf"
        last = min(0.0, float(found.scores.min(initial=0.0)))
        behind = np.full(len(more.items), last, np.float32) if len(found.items) else more.scores
        return Found(
            np.concatenate([found.items, more.items]), np.concatenate([found.scores, behind]).astype(np.float32), source
        )
