"""Neighbour tables: for each item the items nearest to it, and the sum over the neighbours of a history.

It needs numpy only. A request reads the neighbours of its history, not the whole catalogue, so its cost hardly grows
with the number of items. Items are indices into the catalogue.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from service.artifact.array_types import Array, Float64Array, FloatArray, IntArray
from service.artifact.items.grouping import Grouping
from service.artifact.items.item_filters import Allowed
from service.artifact.scorers.scorer_files import ScorerFileError, load_scorer, require, save_scorer

KIND = "neighbours"
DEFAULT_HORIZON = 50

# Up to this many items, a sum over the whole catalogue is cheaper than sorting the neighbours of one history.
_DENSE_ITEMS = 16_384


def sum_by_item(flat: Array, share: Float64Array, n_items: int) -> tuple[IntArray, FloatArray]:
    """Adds up shares by item, in float64 and in their order, so that equal shares give equal bits.

    Args:
        flat: [m] item of each share, 0 … n_items − 1.
        share: [m] the shares.
        n_items: Number of items in the catalogue.

    Returns:
        Items [n] in ascending order, unique, and float32 sums [n], none of them 0.
    """
    # Both ways add the shares of an item in the same order, so they give the same bits.
    if n_items <= _DENSE_ITEMS:
        total = np.bincount(flat, share, minlength=n_items).astype(np.float32)
        items = np.flatnonzero(total != 0)  # faster than to ask for the non-zeros of floats
        return items, total[items]
    grouping = Grouping.of(flat)
    items, total = grouping.items, grouping.sums(share).astype(np.float32)
    keep = total != 0
    return (items, total) if keep.all() else (items[keep], total[keep])


@dataclass(frozen=True, slots=True)
class NeighbourTable:
    """The neighbours of each item; a history scores `score(i) = Σ_j decay^age(j) · sim(j, i)`.

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
        items, scores = self.sums(history)
        dense[items] = scores
        return dense

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
        """Writes the table."""
        save_scorer(
            path,
            KIND,
            neighbour=self.neighbour,
            similarity=self.similarity,
            decay=np.float64(self.decay),
            horizon=np.int64(self.horizon),
        )

    @classmethod
    def load(cls, path: Path, *, check_values: bool = True) -> Self:
        """Maps a file that `save` wrote.

        Args:
            path: The file.
            check_values: Whether to check the values of the arrays, which takes a pass over all of them.

        Raises:
            ScorerFileError: The file is anything else.
        """
        arrays = load_scorer(
            path,
            KIND,
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

    def sums(self, history: IntArray) -> tuple[IntArray, FloatArray]:
        """Returns every neighbour of a history and its score.

        Args:
            history: [events] item indices, oldest first.

        Returns:
            Items [n] in ascending order, unique, and float32 scores [n], none of them 0.
        """
        recent = history[-self.horizon :]
        known = (recent >= 0) & (recent < self.n_items)
        weight = self.decay ** np.arange(len(recent) - 1, -1, -1, dtype=np.float64)
        recent, weight = recent[known], weight[known]
        flat = self.neighbour[recent].ravel()
        share = (self.similarity[recent] * weight[:, None]).ravel()
        return sum_by_item(flat, share, self.n_items)

    def shares(self, history: IntArray, items: IntArray) -> Float64Array:
        """Returns the [k, events] float64 terms of the items' sums [k], one of each event of the history."""
        shares = np.zeros((len(items), len(history)), np.float64)
        place = np.arange(max(0, len(history) - self.horizon), len(history))
        place = place[(history[place] >= 0) & (history[place] < self.n_items)]
        neighbour, similarity = self.neighbour[history[place]], self.similarity[history[place]]
        weight = self.decay ** (len(history) - 1 - place).astype(np.float64)
        for row, item in enumerate(items.tolist()):
            shares[row, place] = np.where(neighbour == item, similarity, 0).sum(axis=1, dtype=np.float64) * weight
        return shares
