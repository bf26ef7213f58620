"""Item-to-item collaborative filtering and popularity: the scorers below the model.

Both need numpy only. The service falls back to them and the evaluation compares the model with them,
through the same code. A request touches the neighbours of its history, not the whole catalogue, so the cost
of an answer hardly grows with the number of items.

Items are indices into the catalogue. Lists are ordered by score, equal scores by the lower index. Files are mapped: a
scorer of a million items is ready at once and shares its pages between processes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import InitVar, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from service.artifact.array_types import BoolArray, FloatArray, IntArray
from service.artifact.arrays import ArrayFileError, map_arrays, save_arrays

FORMAT_VERSION = 2
DEFAULT_HORIZON = 50

# Up to this many items a sum over the whole catalogue is cheaper than sorting the neighbours of one history.
_DENSE_ITEMS = 16_384

_NOTHING: IntArray = np.zeros(0, np.int64)


class ScorerFileError(ValueError):
    """A file that is not what `save` wrote: damaged, of another format, or with values out of range."""


@dataclass(frozen=True, slots=True)
class ItemCF:
    """Recency-weighted item-CF: `score(i) = Σ_j decay^age(j) · sim(j, i)` over the last `horizon` events j of
    the history, the newest at age 0. An item outside the catalogue scores nothing but keeps its age.

    neighbour:  [items, neighbours] int32, the neighbours of each item, the most similar first, never itself
    similarity: [items, neighbours] float32 ≥ 0; a similarity of 0 marks the unused end of a row
    decay:      weight of an event relative to the one after it, in (0, 1]; 1 ignores the order
    horizon:    number of events of a history that count, at least 1
    """

    neighbour: npt.NDArray[np.int32]
    similarity: FloatArray
    decay: float = 1.0
    horizon: int = DEFAULT_HORIZON
    check_values: InitVar[bool] = True

    def __post_init__(self, check_values: bool) -> None:
        """Raises ValueError for arrays that break the description above. Their values are only looked at with
        `check_values`: that is a pass over all of them."""
        items, shape = len(self.neighbour), self.neighbour.shape
        _require(self.neighbour.dtype == np.int32 and len(shape) == 2, "neighbour must be int32 [items, n]")
        _require(
            self.similarity.dtype == np.float32 and self.similarity.shape == shape,
            "similarity must be float32 of the shape of neighbour",
        )
        _require(0 < self.decay <= 1, "decay must be in (0, 1]")
        _require(self.horizon >= 1, "horizon must be at least 1")
        if not check_values:
            return
        _require(bool(np.isfinite(self.similarity).all()), "similarities must be finite")
        _require(bool((self.similarity >= 0).all()), "similarities must not be negative")
        _require(bool((np.diff(self.similarity, axis=1) <= 0).all()), "similarities must fall along a row")
        _require(
            bool(((self.neighbour >= 0) & (self.neighbour < items)).all()),
            f"neighbours must be items 0..{items - 1}",
        )
        itself = self.neighbour == np.arange(items, dtype=np.int32)[:, None]
        _require(not bool((itself & (self.similarity > 0)).any()), "an item must not be its own neighbour")

    @property
    def n_items(self) -> int:
        return len(self.neighbour)

    def scores(self, history: IntArray) -> FloatArray:
        """[items] float32 scores of every item, those of the history included."""
        dense = np.zeros(self.n_items, np.float32)
        items, scores = self._touched(history)
        dense[items] = scores
        return dense

    def recommend(
        self,
        history: IntArray,
        k: int,
        allowed: BoolArray | None = None,
        excluded: IntArray = _NOTHING,
    ) -> tuple[IntArray, FloatArray]:
        """The best items for a history given oldest first: (items [≤ k], scores [≤ k] > 0).

        `allowed` is [items] bool (None: everything); no item of `excluded` is returned. Items of the history
        are returned unless they are excluded. There are fewer than k where the history has too few
        neighbours: `Popularity.fill` completes the list.
        """
        items, scores = self._touched(history)
        keep = scores > 0
        if allowed is not None:
            keep &= allowed[items]
        if len(excluded) and len(items):
            place = np.minimum(np.searchsorted(items, excluded), len(items) - 1)
            keep[place[items[place] == excluded]] = False
        return _best(items[keep], scores[keep], k)

    def similar(self, item: int, k: int, allowed: BoolArray | None = None) -> tuple[IntArray, FloatArray]:
        """The nearest neighbours of one item: (items [≤ k], similarities [≤ k] > 0).

        Raises IndexError for an item outside the catalogue.
        """
        if not 0 <= item < self.n_items:
            raise IndexError(f"no item {item} among {self.n_items}")
        items, similarity = self.neighbour[item].astype(np.int64), self.similarity[item]
        keep = similarity > 0
        if allowed is not None:
            keep &= allowed[items]
        return items[keep][:k], similarity[keep][:k]

    def save(self, path: Path) -> None:
        _save(
            path,
            "item_cf",
            neighbour=self.neighbour,
            similarity=self.similarity,
            decay=np.float64(self.decay),
            horizon=np.int64(self.horizon),
        )

    @classmethod
    def load(cls, path: Path, *, check_values: bool = True) -> Self:
        """Maps what `save` wrote; raises ScorerFileError for anything else."""
        arrays = _load(
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
        """Every neighbour of the history in ascending order, and its score."""
        recent = history[-self.horizon :]
        known = (recent >= 0) & (recent < self.n_items)
        weight = self.decay ** np.arange(len(recent) - 1, -1, -1, dtype=np.float64)
        recent, weight = recent[known], weight[known]
        flat = self.neighbour[recent].ravel()
        share = (self.similarity[recent] * weight[:, None]).ravel()
        # Either way the shares of an item are added in the same order, so both give the same bits.
        if self.n_items <= _DENSE_ITEMS:
            total = np.bincount(flat, share, minlength=self.n_items)
            items = np.flatnonzero(total)
            return items, total[items].astype(np.float32)
        items, slot = np.unique(flat, return_inverse=True)
        total = np.bincount(slot, share, minlength=len(items))
        return items.astype(np.int64), total.astype(np.float32)


@dataclass(frozen=True, slots=True)
class Popularity:
    """How often each item was interacted with: the answer that needs no history.

    share: [items] float32 ≥ 0, the item's part of all events (the sum is 1, or 0 for an empty log)
    order: [items] int32, all items, the most popular first; rank: [items] int32, its inverse
    """

    share: FloatArray
    order: npt.NDArray[np.int32]
    rank: npt.NDArray[np.int32]

    @classmethod
    def of(cls, share: FloatArray) -> Self:
        """Raises ValueError for shares that are not shares."""
        _require(share.dtype == np.float32 and share.ndim == 1, "share must be float32 [items]")
        _require(bool(np.isfinite(share).all()), "shares must be finite")
        _require(bool((share >= 0).all()), "shares must not be negative")
        total = float(share.sum(dtype=np.float64))
        _require(total == 0 or abs(total - 1) < 1e-3, f"shares must add up to 1, not {total:.6g}")
        order = np.argsort(-share, kind="stable").astype(np.int32)
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order), dtype=np.int32)
        return cls(share, order, rank)

    @classmethod
    def fit(cls, items: IntArray, n_items: int) -> Self:
        """Shares of a log given as one item index an event."""
        count = np.bincount(items, minlength=n_items).astype(np.float64)
        return cls.of((count / max(1.0, count.sum())).astype(np.float32))

    @property
    def n_items(self) -> int:
        return len(self.share)

    def recommend(
        self, k: int, allowed: BoolArray | None = None, excluded: IntArray = _NOTHING
    ) -> tuple[IntArray, FloatArray]:
        """The most popular items: (items [n], shares [n]); n = k whenever k are allowed and not excluded."""
        items = self._first(min(self.n_items, 2 * (k + len(excluded)) + 64), k, allowed, excluded)
        if len(items) < k and self.n_items:
            items = self._among(k, allowed, excluded)
        return items, self.share[items]

    def fill(
        self,
        items: IntArray,
        scores: FloatArray,
        k: int,
        allowed: BoolArray | None = None,
        excluded: IntArray = _NOTHING,
    ) -> tuple[IntArray, FloatArray]:
        """Completes a list to k items with the most popular others that are allowed and not excluded.

        They score 0, which is what item-CF gives an item that no event of the history knows.
        """
        missing = k - len(items)
        if missing <= 0:
            return items[:k], scores[:k]
        more, _ = self.recommend(missing, allowed, np.concatenate([excluded, items]))
        filled = np.concatenate([scores, np.zeros(len(more), np.float32)])
        return np.concatenate([items, more]), filled

    def save(self, path: Path) -> None:
        _save(path, "popularity", share=self.share, order=self.order, rank=self.rank)

    @classmethod
    def load(cls, path: Path, *, check_values: bool = True) -> Self:
        """Maps what `save` wrote; raises ScorerFileError for anything else. Without `check_values` the order is
        believed, not computed again."""
        arrays = _load(path, "popularity", {"share": (np.float32, 1), "order": (np.int32, 1), "rank": (np.int32, 1)})
        found = cls(arrays["share"], arrays["order"], arrays["rank"])
        try:
            _require(len(found.share) == len(found.order) == len(found.rank), "one order and rank for every share")
            if check_values:
                same = cls.of(found.share)
                _require(bool((same.order == found.order).all()), "the order is not that of the shares")
                _require(bool((same.rank == found.rank).all()), "the ranks are not those of the order")
        except ValueError as error:
            raise ScorerFileError(f"{path.name}: {error}") from error
        return found

    def _first(self, n: int, k: int, allowed: BoolArray | None, excluded: IntArray) -> IntArray:
        """Up to k items among the n most popular."""
        head = self.order[:n].astype(np.int64)
        keep = np.ones(n, np.bool_) if allowed is None else allowed[head]
        rank = self.rank[self._known(excluded)]
        keep[rank[rank < n]] = False
        return head[keep][:k]

    def _among(self, k: int, allowed: BoolArray | None, excluded: IntArray) -> IntArray:
        """The same over the whole catalogue, starting from the (then few) allowed items."""
        n = self.n_items
        keep = np.ones(n, np.bool_) if allowed is None else allowed[:n].copy()
        keep[self._known(excluded)] = False
        rank = self.rank[np.flatnonzero(keep)]
        if len(rank) > k:
            rank = np.partition(rank, k)[:k] if k else rank[:0]
        return self.order[np.sort(rank)].astype(np.int64)

    def _known(self, items: IntArray) -> IntArray:
        """Those that were in the log's catalogue: there may be later ones."""
        return items[(items >= 0) & (items < self.n_items)]


def _best(items: IntArray, scores: FloatArray, k: int) -> tuple[IntArray, FloatArray]:
    """The k highest scores of items given in ascending order, ties to the lower item."""
    if k <= 0:
        return items[:0], scores[:0]
    if len(items) > k:
        least = np.partition(scores, len(scores) - k)[len(scores) - k]
        candidates = np.flatnonzero(scores >= least)
        items, scores = items[candidates], scores[candidates]
    order = np.argsort(-scores, kind="stable")[:k]
    return items[order], scores[order]


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)


def _save(path: Path, kind: str, **arrays: Any) -> None:
    save_arrays(path, format=np.int64(FORMAT_VERSION), kind=np.str_(kind), **arrays)


def _load(path: Path, kind: str, expected: Mapping[str, tuple[type[np.generic], int]]) -> dict[str, Any]:
    """The arrays of a file of this kind, their types and dimensions checked."""
    try:
        arrays = map_arrays(path)
    except ArrayFileError as error:
        raise ScorerFileError(str(error)) from error
    if str(arrays.get("kind")) != kind:
        raise ScorerFileError(f"{path.name} does not hold {kind} arrays")
    if str(arrays.get("format")) != str(FORMAT_VERSION):
        raise ScorerFileError(f"{path.name} has a format this version does not read; export the model again")
    if set(arrays) != {"kind", "format", *expected}:
        raise ScorerFileError(f"{path.name} holds {sorted(arrays)}")
    for name, (dtype, ndim) in expected.items():
        if arrays[name].dtype != dtype or arrays[name].ndim != ndim:
            raise ScorerFileError(f"{path.name}: {name} is {arrays[name].dtype} with {arrays[name].ndim} axes")
    return arrays
