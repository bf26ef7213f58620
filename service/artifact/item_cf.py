"""Item-to-item collaborative filtering (item-CF): the scorer that answers first when the model cannot.

It needs numpy only. The service falls back to it and the evaluation compares the model with it, through the same code.
A request reads the neighbours of its history, not the whole catalogue, so the cost of an answer hardly grows with the
number of items.

Items are indices into the catalogue; lists are ordered by score, equal scores by the lower index.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from service.artifact.array_types import FloatArray, IntArray
from service.artifact.item_filters import Allowed
from service.artifact.scorer_files import ScorerFileError, load_scorer, require, save_scorer

DEFAULT_HORIZON = 50

# Up to this many items, a sum over the whole catalogue is cheaper than sorting the neighbours of one history.
_DENSE_ITEMS = 16_384

_NOTHING: IntArray = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class ItemCF:
    """Recency-weighted item-CF: `score(i) = Σ_j decay^age(j) · sim(j, i)`.

    The sum is over the last `horizon` events j of the history; the newest has age 0. An event of an item outside the
    catalogue scores nothing but counts for the age.

    Attributes:
        neighbour: [items, neighbours] int32, the neighbours of each item, the most similar first, never the item.
        similarity: [items, neighbours] float32 ≥ 0; a similarity of 0 marks the unused end of a row.
        decay: Weight of an event relative to the one after it, in (0, 1]; 1 ignores the order.
        horizon: Number of newest events of a history that count, at least 1.
        check_values: Whether to check the values of the arrays, which takes a pass over all of them.
    """

    neighbour: npt.NDArray[np.int32]
    similarity: FloatArray
    decay: float = 1.0
    horizon: int = DEFAULT_HORIZON
    check_values: InitVar[bool] = True

    def __post_init__(self, check_values: bool) -> None:
        """Raises ValueError for arrays that do not fit the description above."""
        items, shape = len(self.neighbour), self.neighbour.shape
        require(self.neighbour.dtype == np.int32 and len(shape) == 2, "neighbour must be int32 [items, n]")
        require(
            self.similarity.dtype == np.float32 and self.similarity.shape == shape,
            "similarity must be float32 of the shape of neighbour",
        )
        require(0 < self.decay <= 1, "decay must be in (0, 1]")
        require(self.horizon >= 1, "horizon must be at least 1")
        if not check_values:
            return
        require(bool(np.isfinite(self.similarity).all()), "similarities must be finite")
        require(bool((self.similarity >= 0).all()), "similarities must not be negative")
        require(bool((np.diff(self.similarity, axis=1) <= 0).all()), "similarities must fall along a row")
        require(
            bool(((self.neighbour >= 0) & (self.neighbour < items)).all()),
            f"neighbours must be items 0 … {items - 1}",
        )
        itself = self.neighbour == np.arange(items, dtype=np.int32)[:, None]
        require(not bool((itself & (self.similarity > 0)).any()), "an item must not be its own neighbour")

    @property
    def n_items(self) -> int:
        """Number of items in the catalogue."""
        return len(self.neighbour)

    def scores(self, history: IntArray) -> FloatArray:
        """Returns [items] float32 scores of all items, those of the history included."""
        dense = np.zeros(self.n_items, np.float32)
        items, scores = self._touched(history)
        dense[items] = scores
        return dense

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
        items, scores = self._touched(history)
        keep = scores > 0
        if allowed is not None:
            keep &= allowed[items]
        if len(excluded) and len(items):
            place = np.minimum(np.searchsorted(items, excluded), len(items) - 1)
            keep[place[items[place] == excluded]] = False
        return _best(items[keep], scores[keep], k)

    def similar(self, item: int, k: int, allowed: Allowed | None = None) -> tuple[IntArray, FloatArray]:
        """Returns the nearest neighbours of one item.

        Args:
            item: Index of the item.
            k: Number of neighbours wanted.
            allowed: Whether an item may be returned; None: all may.

        Returns:
            Items [≤ k] and their similarities [≤ k] > 0, the most similar first.

        Raises:
            IndexError: The item is outside the catalogue.
        """
        if not 0 <= item < self.n_items:
            raise IndexError(f"item {item} is out of range: there are {self.n_items}")
        items, similarity = self.neighbour[item].astype(np.int64), self.similarity[item]
        keep = similarity > 0
        if allowed is not None:
            keep &= allowed[items]
        return items[keep][:k], similarity[keep][:k]

    def save(self, path: Path) -> None:
        """Writes the scorer."""
        save_scorer(
            path,
            "item_cf",
            neighbour=self.neighbour,
            similarity=self.similarity,
            decay=np.float64(self.decay),
            horizon=np.int64(self.horizon),
        )

    @classmethod
    def load(cls, path: Path, *, check_values: bool = True) -> Self:
        """Maps a file that `save` wrote.

        Raises:
            ScorerFileError: The file is anything else.
        """
        arrays = load_scorer(
            path,
            "item_cf",
            {
                "neighbour": (np.int32, 2),
                "similarity": (np.float32, 2),
                "decay": (np.float64, 0),
                "horizon": (np.int64, 0),
            },
        )
        try:
            return cls(
                neighbour=arrays["neighbour"],
                similarity=arrays["similarity"],
                decay=float(arrays["decay"]),
                horizon=int(arrays["horizon"]),
                check_values=check_values,
            )
        except ValueError as error:
            raise ScorerFileError(f"{path.name}: {error}") from error

    def _touched(self, history: IntArray) -> tuple[IntArray, FloatArray]:
        """Returns every neighbour of the history in ascending order, and its score."""
        recent = history[-self.horizon :]
        known = (recent >= 0) & (recent < self.n_items)
        weight = self.decay ** np.arange(len(recent) - 1, -1, -1, dtype=np.float64)
        recent, weight = recent[known], weight[known]
        flat = self.neighbour[recent].ravel()
        share = (self.similarity[recent] * weight[:, None]).ravel()
        # Both ways add the shares of an item in the same order, so they give the same bits.
        if self.n_items <= _DENSE_ITEMS:
            total = np.bincount(flat, share, minlength=self.n_items)
            items = np.flatnonzero(total)
            return items, total[items].astype(np.float32)
        items, slot = np.unique(flat, return_inverse=True)
        total = np.bincount(slot, share, minlength=len(items))
        return items.astype(np.int64), total.astype(np.float32)


def _best(items: IntArray, scores: FloatArray, k: int) -> tuple[IntArray, FloatArray]:
    """Returns the k highest scores of items given in ascending order; ties go to the lower item."""
    if k <= 0:
        return items[:0], scores[:0]
    if len(items) > k:
        least = np.partition(scores, len(scores) - k)[len(scores) - k]
        candidates = np.flatnonzero(scores >= least)
        items, scores = items[candidates], scores[candidates]
    order = np.argsort(-scores, kind="stable")[:k]
    return items[order], scores[order]
