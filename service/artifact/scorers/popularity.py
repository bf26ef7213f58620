"""Popularity: the scorer that needs no history.

It needs numpy only. Items are indices into the catalogue; lists are ordered by share, equal shares by the lower index.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from service.artifact.array_types import FloatArray, IntArray
from service.artifact.items.item_filters import Allowed, ItemFilter
from service.artifact.scorers.scorer_files import ScorerFileError, load_scorer, require, save_scorer

KIND = "popularity"

_NOTHING: IntArray = np.zeros(0, np.int64)
# Popular items that are tested one by one where no mask is at hand.
_LOOKED_AT = 4096


@dataclass(frozen=True, slots=True)
class Popularity:
    """How often each item was interacted with.

    Attributes:
        share: [items] float32 ≥ 0, each item's share of all events; the sum is 1, or 0 for an empty log.
        order: [items] int32, all items, the most popular first.
        rank: [items] int32, the inverse of `order`.
        n_events: Number of events that the shares are of.
        log_count: [items] float32 log(1 + number of events) as the ranker counts them, where it counts for an item
            without events what similar items have; None: as in the log. Lists of popular items are by the log alone.
    """

    share: FloatArray
    order: npt.NDArray[np.int32]
    rank: npt.NDArray[np.int32]
    n_events: int = 0
    log_count: FloatArray | None = None

    @classmethod
    def of(cls, share: FloatArray, n_events: int = 0) -> Self:
        """Builds the scorer from the share of each item, and the number of events that the shares are of.

        Raises:
            ValueError: The shares are not finite, negative, or do not add up to 1.
        """
        require(share.dtype == np.float32 and share.ndim == 1, "share must be float32 [items]")
        require(bool(np.isfinite(share).all()), "shares must be finite")
        require(bool((share >= 0).all()), "shares must not be negative")
        total = float(share.sum(dtype=np.float64))
        require(total == 0 or abs(total - 1) < 1e-3, f"shares must add up to 1, not {total:.6g}")
        order = np.argsort(-share, kind="stable").astype(np.int32)
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order), dtype=np.int32)
        return cls(share, order, rank, n_events)

    @classmethod
    def fit(cls, items: IntArray, n_items: int) -> Self:
        """Builds the scorer from a log, given as the item index of each event."""
        count = np.bincount(items, minlength=n_items).astype(np.float64)
        return cls.of((count / max(1.0, count.sum())).astype(np.float32), len(items))

    @property
    def n_items(self) -> int:
        """Number of items in the catalogue of the log."""
        return len(self.share)

    def log_counts(self) -> FloatArray:
        """Returns [items] float32 log(1 + number of events), as the ranker counts them."""
        if self.log_count is not None:
            return self.log_count
        return np.log1p(np.rint(self.share.astype(np.float64) * self.n_events)).astype(np.float32)

    def recommend(
        self, k: int, allowed: Allowed | None = None, excluded: IntArray = _NOTHING
    ) -> tuple[IntArray, FloatArray]:
        """Returns the most popular items.

        Args:
            k: Number of items wanted.
            allowed: Whether an item may be returned; None: all may.
            excluded: Items that are not returned.

        Returns:
            Items [n] and their shares [n]; n = k if there are k items that are allowed and not excluded.
        """
        items = self._first(min(self.n_items, 2 * (k + len(excluded)) + 64), k, allowed, excluded)
        if len(items) < k and self.n_items:
            items = self._among(k, allowed, excluded)
        return items, self.share[items]

    def fill(
        self,
        items: IntArray,
        scores: FloatArray,
        k: int,
        allowed: Allowed | None = None,
        excluded: IntArray = _NOTHING,
    ) -> tuple[IntArray, FloatArray]:
        """Completes a list to k items with the most popular other items that are allowed and not excluded.

        These score 0, as an item does in item-CF that is no neighbour of any event of the history.

        Args:
            items: [n] items of the list.
            scores: [n] their scores.
            k: Number of items wanted.
            allowed: Whether an item may be added; None: all may.
            excluded: Items that are not added.

        Returns:
            Items and scores, [≤ k] each.
        """
        missing = k - len(items)
        if missing <= 0:
            return items[:k], scores[:k]
        more, _ = self.recommend(missing, allowed, np.concatenate([excluded, items]))
        filled = np.concatenate([scores, np.zeros(len(more), np.float32)])
        return np.concatenate([items, more]), filled

    def save(self, path: Path) -> None:
        """Writes the scorer."""
        counted = {} if self.log_count is None else {"log_count": self.log_count}
        n_events = np.int64(self.n_events)
        save_scorer(path, KIND, share=self.share, order=self.order, rank=self.rank, n_events=n_events, **counted)

    @classmethod
    def load(cls, path: Path, *, check_values: bool = True) -> Self:
        """Maps a file that `save` wrote.

        Args:
            path: The file.
            check_values: Whether to check shares and order, which takes a pass over all of them.

        Raises:
            ScorerFileError: The file is anything else.
        """
        arrays = load_scorer(
            path,
            KIND,
            {"share": (np.float32, 1), "order": (np.int32, 1), "rank": (np.int32, 1), "n_events": (np.int64, 0)},
            {"log_count": (np.float32, 1)},
        )
        n_events, log_count = int(arrays["n_events"]), arrays.get("log_count")
        scorer = cls(arrays["share"], arrays["order"], arrays["rank"], n_events, log_count)
        try:
            require(
                len(scorer.share) == len(scorer.order) == len(scorer.rank), "shares, order and ranks differ in length"
            )
            if log_count is not None:
                require(len(log_count) == len(scorer.share), "shares and counts differ in length")
                require(bool(np.isfinite(log_count).all()), "counts must be finite")
            require(scorer.n_events >= 0, "the number of events must not be negative")
            if check_values:
                computed = cls.of(scorer.share)
                require(bool((computed.order == scorer.order).all()), "the order is not that of the shares")
                require(bool((computed.rank == scorer.rank).all()), "the ranks are not those of the order")
        except ValueError as error:
            raise ScorerFileError(f"{path.name}: {error}") from error
        return scorer

    def _first(self, n: int, k: int, allowed: Allowed | None, excluded: IntArray) -> IntArray:
        """Returns up to k items among the n most popular."""
        head = self.order[:n].astype(np.int64)
        keep = np.ones(n, np.bool_) if allowed is None else allowed[head]
        rank = self.rank[self._known(excluded)]
        keep[rank[rank < n]] = False
        return head[keep][:k]

    def _among(self, k: int, allowed: Allowed | None, excluded: IntArray) -> IntArray:
        """Returns the same from the whole catalogue, starting from the allowed items, which are few by then."""
        if isinstance(allowed, ItemFilter):
            return self._among_few(k, allowed, excluded)
        n = self.n_items
        keep = np.ones(n, np.bool_) if allowed is None else allowed[:n].copy()
        keep[self._known(excluded)] = False
        rank = self.rank[np.flatnonzero(keep)]
        if len(rank) > k:
            rank = np.partition(rank, k)[:k] if k else rank[:0]
        return self.order[np.sort(rank)].astype(np.int64)

    def _among_few(self, k: int, allowed: ItemFilter, excluded: IntArray) -> IntArray:
        """Returns the same without a mask: from the matching items where they are few, else from the popular ones.

        Work is bounded, so a list can be short where many items match the filter but few popular ones do.
        """
        few = allowed.few()
        if few is None:
            return self._first(min(self.n_items, _LOOKED_AT), k, allowed, excluded)
        rank = self.rank[np.setdiff1d(self._known(few), excluded)]
        return self.order[np.sort(rank)[:k]].astype(np.int64)

    def _known(self, items: IntArray) -> IntArray:
        """Returns the items that were in the log's catalogue; the others came later."""
        return items[(items >= 0) & (items < self.n_items)]
