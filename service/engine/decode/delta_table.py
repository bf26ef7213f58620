"""Items that came after the export, until the next build of the trie takes them in.

A new item is placed where the items it is like are: its vector points along the mean of theirs. It is scored densely
and merged into the list in the list's own units, q · e + offset. The offset is the decoder's:
log Σ p(path) − logsumexp(dense) over its survivors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.artifact.array_types import BoolArray, Float64Array, FloatArray, IntArray
from service.artifact.noise import gumbel, hash_of
from service.engine.jobs import DecodedList, ListRequest

MOST_WAITING = 4096
# The mean over a category uses this many of its items, evenly spread: more would not change it.
_MEAN_OF = 1024
# The mean of like-items says something if it keeps this part of their length: what is left of vectors that cancel each
# other out is chance.
_AGREE = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class DeltaTable:
    """The new items that wait for the next build of the trie. Never changed, only replaced.

    Attributes:
        items: [m] catalogue indices, ascending.
        vectors: [m, d] float32 item vectors.
    """

    items: IntArray
    vectors: FloatArray

    def __len__(self) -> int:
        return len(self.items)

    def merge(
        self,
        decoded: DecodedList,
        query: FloatArray,
        offset: float,
        request: ListRequest,
        allowed: BoolArray,
        noise_level: int | None = None,
    ) -> DecodedList:
        """Merges waiting items into a list.

        Args:
            decoded: The decoder's list.
            query: [d] the decoder's q for this row.
            offset: The decoder's offset for this row.
            request: What was requested; its excluded items stay out.
            allowed: [m] whether the request's filter allows each waiting item.
            noise_level: Level of the items' noise if sampled lists are drawn item by item; None if they are drawn path
                by path.

        Returns:
            At most k items, without repeats.
        """
        open_ = np.flatnonzero(allowed & ~np.isin(self.items, request.excluded) if len(request.excluded) else allowed)
        if not len(open_):
            return decoded
        if len(decoded.items) == 0:
            offset = 0.0  # no survivors to compare with
        waiting = (self.vectors @ query)[open_] + np.float32(offset)
        if not np.isfinite(waiting).all():
            return decoded
        items = np.concatenate([decoded.items, self.items[open_]])
        scores = np.concatenate([decoded.scores, waiting])
        log_probs = np.concatenate([decoded.log_probs, waiting])
        if not request.decoding.sampled:
            order = np.argsort(-scores, kind="stable")
        elif noise_level is None:
            order = _drawn(decoded.scores, waiting, request)
        else:
            order = _by_key(_keys(items, scores, request, noise_level), len(decoded.items))
        order = order[: request.k]
        return DecodedList(items[order], scores[order], log_probs[order])


def _keys(items: IntArray, scores: FloatArray, request: ListRequest, noise_level: int) -> Float64Array:
    """The sampler's own sort keys (`export.graphs.blend_sampler`), up to a constant: score ÷ temperature + noise."""
    noise = gumbel(hash_of(noise_level, items), request.seed)
    return scores.astype(np.float64) * request.decoding.inverse_temperature + noise


def _by_key(keys: Float64Array, n_decoded: int) -> IntArray:
    """Positions sorted by key, descending, with the first `n_decoded` kept in their own order.

    The decoder lists items outside the nucleus last whatever their keys, so those keys do not give an order.
    Waiting items are not tested against the nucleus.
    """
    waiting = list(n_decoded + np.argsort(-keys[n_decoded:], kind="stable"))
    order: list[int] = []
    for position in range(n_decoded):
        while waiting and keys[waiting[0]] > keys[position]:
            order.append(waiting.pop(0))
        order.append(position)
    return np.array([*order, *waiting], np.int64)


def _drawn(decoded: FloatArray, waiting_scores: FloatArray, request: ListRequest) -> IntArray:
    """Positions of at most k items, drawn without replacement.

    The list is a draw of paths already. Its next item comes up with the probability that is left in the trie, a
    waiting item with its own. Both are probabilities before temperature and nucleus, because the
    distribution that the paths were drawn from is not known for each item.
    """
    rng = np.random.default_rng(request.seed % 2**63)
    weight = np.exp(np.minimum(waiting_scores.astype(np.float64), 0.0))
    in_trie, taken = 1.0, 0
    order: list[int] = []
    waiting = list(range(len(waiting_scores)))
    while len(order) < request.k and (taken < len(decoded) or waiting):
        left = in_trie if taken < len(decoded) else 0.0
        draw = rng.random() * (left + float(weight[waiting].sum())) - left
        if draw < 0 or not waiting:
            order.append(taken)
            in_trie = max(in_trie - math.exp(min(float(decoded[taken]), 0.0)), 1e-9)
            taken += 1
        else:
            chosen = min(int(np.searchsorted(np.cumsum(weight[waiting]), draw)), len(waiting) - 1)
            order.append(len(decoded) + waiting.pop(chosen))
    return np.array(order, np.int64)


def like_vector(
    rows: Sequence[int] | npt.NDArray[np.integer], item_table: FloatArray, *, named: bool
) -> tuple[FloatArray, int]:
    """Computes the vector of a new item from the items it is like.

    If the like-items were named one by one and agree, the mean gets their mean length. Averaging shortens a vector,
    and since scores are inner products the new item would come after every item that it is like. The mean of a
    category stays short, because it stands for many items.

    Args:
        rows: Like-items, as rows of the item table.
        item_table: [rows, d] item vectors.
        named: Whether the like-items were named one by one; otherwise they are a category.

    Returns:
        The vector [d] float32, and the like-item nearest to it by angle.
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
