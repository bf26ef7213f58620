"""Items that came after the export, until the next build of the trie takes them in.

A new item stands where its like-items stand: its vector is along the mean of theirs. It is scored densely and merged
into the list in the list's own units: q · e + offset, the decoder's offset being log Σ p(path) − logsumexp(dense) over
its survivors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.artifact.array_types import BoolArray, FloatArray, IntArray
from service.artifact.noise import gumbel, hash_of
from service.engine.jobs import DecodedList, ListRequest

MOST_WAITING = 4096
# Items of a category that its mean is taken of: evenly spread, since more would not change it.
_MEAN_OF = 1024
# Of their length, at least, where the mean of like-items says anything: what is left of vectors that cancel is chance.
_AGREE = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class DeltaTable:
    """`items` [m] catalogue indices, ascending, and `vectors` [m, d] float32. Never changed, only replaced."""

    items: IntArray
    vectors: FloatArray

    def __len__(self) -> int:
        return len(self.items)

    def merge(
        self,
        listed: DecodedList,
        query: FloatArray,
        offset: float,
        request: ListRequest,
        allowed: BoolArray,
        noise_level: int | None = None,
    ) -> DecodedList:
        """The requested list with the waiting items in it: `query` [d] and `offset` are the decoder's for this row,
        `allowed` [m] says which items the filter admits, `noise_level` is that of the items' noise where sampled
        lists are drawn item by item. At most k, without repeats, none excluded."""
        open_ = np.flatnonzero(allowed & ~np.isin(self.items, request.excluded) if len(request.excluded) else allowed)
        if not len(open_):
            return listed
        if len(listed.items) == 0:
            offset = 0.0  # no survivors to compare with
        waiting = (self.vectors @ query)[open_] + np.float32(offset)
        if not np.isfinite(waiting).all():
            return listed
        items = np.concatenate([listed.items, self.items[open_]])
        scores = np.concatenate([listed.scores, waiting])
        log_probs = np.concatenate([listed.log_probs, waiting])
        if not request.decoding.sampled:
            order = np.argsort(-scores, kind="stable")
        elif noise_level is None:
            order = _drawn(listed.scores, waiting, request)
        else:
            order = _by_key(_keys(items, scores, request, noise_level), len(listed.items))
        order = order[: request.k]
        return DecodedList(items[order], scores[order], log_probs[order])


def _keys(items: IntArray, scores: FloatArray, request: ListRequest, noise_level: int) -> npt.NDArray[np.float64]:
    """What the sampler orders by (`export.graphs.blend_sampler`), but for a constant: score ÷ temperature + noise."""
    noise = gumbel(hash_of(noise_level, items), request.seed)
    return scores.astype(np.float64) * request.decoding.inverse_temperature + noise


def _by_key(keys: npt.NDArray[np.float64], n_listed: int) -> IntArray:
    """Places in the order of their keys, the first `n_listed` in the order they have: what is outside of the nucleus is
    last among them, whatever its key, and whether a waiting item is inside is not asked."""
    waiting = list(n_listed + np.argsort(-keys[n_listed:], kind="stable"))
    order: list[int] = []
    for place in range(n_listed):
        while waiting and keys[waiting[0]] > keys[place]:
            order.append(waiting.pop(0))
        order.append(place)
    return np.array([*order, *waiting], np.int64)


def _drawn(listed: FloatArray, scores: FloatArray, request: ListRequest) -> IntArray:
    """Places of at most k items, drawn without replacement by the scores `listed` of the list and `scores` of what
    waits: the list is a draw of paths already, so its next item comes up with the probability that is left in the
    trie, a waiting item with its own.

    The probabilities are those before temperature and nucleus: what the paths were drawn from is not known by item.
    """
    rng = np.random.default_rng(request.seed % 2**63)
    weight = np.exp(np.minimum(scores.astype(np.float64), 0.0))
    in_trie, taken = 1.0, 0
    order: list[int] = []
    waiting = list(range(len(scores)))
    while len(order) < request.k and (taken < len(listed) or waiting):
        left = in_trie if taken < len(listed) else 0.0
        at = rng.random() * (left + float(weight[waiting].sum())) - left
        if at < 0 or not waiting:
            order.append(taken)
            in_trie = max(in_trie - math.exp(min(float(listed[taken]), 0.0)), 1e-9)
            taken += 1
        else:
            chosen = min(int(np.searchsorted(np.cumsum(weight[waiting]), at)), len(waiting) - 1)
            order.append(len(listed) + waiting.pop(chosen))
    return np.array(order, np.int64)


def like_vector(
    rows: Sequence[int] | npt.NDArray[np.integer], item_table: FloatArray, *, named: bool
) -> tuple[FloatArray, int]:
    """Mean vector [d] of like-items, and the one of them that is nearest to it by angle.

    Where they were `named` one by one and agree the mean gets their mean length: averaging shortens it, and as scores
    are inner products the new item would come after every item that it is like. That of a category stays short, as
    all it says is of many.
    """
    rows = np.asarray(rows, np.int64)
    if len(rows) > _MEAN_OF:
        rows = rows[np.linspace(0, len(rows) - 1, _MEAN_OF).astype(np.int64)]
    vectors = item_table[rows].astype(np.float32)
    mean: FloatArray = vectors.mean(axis=0)
    lengths = np.linalg.norm(vectors, axis=1)
    nearest = int(rows[int((vectors @ mean / np.maximum(lengths, 1e-12)).argmax())])
    length, left = float(lengths.mean()), float(np.linalg.norm(mean))
    if named and left > _AGREE * length:
        mean = mean * (length / left)
    return mean.astype(np.float32), nearest
