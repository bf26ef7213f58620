"""Items for a list that has too few candidates: what the lower scorers rank next, under the same constraints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from service.artifact.array_types import BoolArray, IntArray
from service.artifact.items.filter_conditions import Filters
from service.engine.fallback import Constraints, Fallback, RecommendationList
from service.rules.items import Items
from service.signals.user_history import UserHistory

_NOTHING: IntArray = np.zeros(0, np.int64)
# Popular items that are looked at for one attribute.
_LOOKED_AT = 4096


@dataclass(slots=True, eq=False)
class Reserve:
    """Where more items come from.

    Attributes:
        items: What is known of items.
        fallback: The scorers that need no model.
        limits: What the list may hold.
        history: What is known of the user.
    """

    items: Items
    fallback: Fallback
    limits: Constraints
    history: Callable[[], UserHistory]

    def may_list(self, item: int) -> bool:
        """Returns whether the list may hold an item."""
        allowed = self.limits.allowed
        if (self.limits.excluded == item).any():
            return False
        return allowed is None or bool(allowed[np.array([item], np.int64)][0])

    def listable(self, items: IntArray) -> IntArray:
        """Returns those of the items that the list may hold."""
        if not len(items):
            return items
        allowed = self.limits.allowed
        keep: BoolArray = ~np.isin(items, self.limits.excluded)
        if allowed is not None:
            keep &= allowed[items]
        return items[keep]

    def popular(self, n: int, without: IntArray) -> IntArray:
        """Returns up to n popular items that are not in `without`."""
        beside = Constraints(self.limits.allowed, np.concatenate([self.limits.excluded, without]))
        return self.fallback.popular(n, beside).items

    def having(self, where: Filters | None, n: int, without: IntArray) -> IntArray:
        """Returns up to n items with an attribute, or new to the catalogue, that are not in `without`.

        Those that the user's signals speak for come first, then popular ones.

        Args:
            where: The attribute; None: new items.
            n: Number of items wanted.
            without: Items that are there already.
        """
        found = self._new() if where is None else self._with(where, n, without)
        return self.listable(found[~np.isin(found, without)])[:n]

    def _with(self, where: Filters, n: int, without: IntArray) -> IntArray:
        try:
            having = self.items.catalogue.filter(where)
        except ValueError:
            return _NOTHING
        if having.nothing:
            return _NOTHING
        limits = Constraints(having, np.concatenate([self.limits.excluded, without]))
        liked: RecommendationList = self.fallback.by_history(self.history(), 2 * n, limits)
        head = self.fallback.popularity.order[:_LOOKED_AT].astype(np.int64)
        few = having.few()
        others = head[having[head]] if few is None else few
        return np.array(list(dict.fromkeys([*liked.items.tolist(), *others.tolist()])), np.int64)

    def _new(self) -> IntArray:
        """The newest first: items that came after the export, then those without an event."""
        late = np.fromiter(self.fallback.stand_in, np.int64, len(self.fallback.stand_in))
        tail = self.fallback.popularity.order[-_LOOKED_AT:].astype(np.int64)
        tail = tail[self.fallback.popularity.share[tail] == 0]
        return np.concatenate([np.sort(late)[::-1], np.sort(tail)[::-1]])
