"""Items that came after the export, until the next build of the trie takes them in.

A new item is placed where the items it is like are: its vector points along the mean of theirs. It has no path yet, so
q · e + offset stands for the log-probability of its path as well as for its dense score. The offset is the decoder's,
log Σ p(path) − logsumexp(dense) over its candidates. What signals add is what they add to the item's stand-in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from service.artifact.array_types import BoolArray, Float64Array, FloatArray, IntArray
from service.artifact.noise import gumbel, item_hash
from service.engine.candidates import Candidates
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
        self, decoded: DecodedList, scores: WaitingScores, request: ListRequest, allowed: BoolArray
    ) -> DecodedList:
        """Merges waiting items into a list.

        Args:
            decoded: The decoder's list.
            scores: What the waiting items are worth to this row.
            request: What was requested; its excluded items stay out.
            allowed: [m] whether the request's filter allows each waiting item.

        Returns:
            At most k items, without repeats.
        """
        places = np.flatnonzero(allowed & ~np.isin(self.items, request.excluded))
        if not len(places):
            return decoded
        dense = (self.vectors @ scores.query)[places]
        # Without survivors there is nothing to compare with.
        log_probs = dense + np.float32(scores.offset if len(decoded.items) else 0.0)
        score = log_probs * np.float32(scores.weight) + scores.added[places]
        if not np.isfinite(score).all():
            return decoded
        waiting = Candidates(self.items[places], log_probs, dense, np.ones(len(places), np.bool_))
        return _merged(decoded, waiting, score, request)


@dataclass(frozen=True, slots=True)
class WaitingScores:
    """What the waiting items of a delta table are worth to one row of a run.

    Attributes:
        query: [d] the decoder's q.
        offset: The decoder's offset.
        weight: Weight of q · e + offset: that of the path and of the dense score together.
        added: [m] float32 what signals add to the score of each waiting item.
    """

    query: FloatArray
    offset: float
    weight: float
    added: FloatArray


def _merged(decoded: DecodedList, waiting: Candidates, score: FloatArray, request: ListRequest) -> DecodedList:
    """Ranks waiting items, of these scores, among those of a list."""
    items = np.concatenate([decoded.items, waiting.items])
    scores = np.concatenate([decoded.scores, score])
    n_decoded = len(decoded.items)
    if request.decoding.sampled:
        order = _by_key(_keys(items, scores, request), n_decoded)
    else:
        order = np.argsort(-scores, kind="stable")
    order = order[: request.k]
    candidates = decoded.candidates
    if candidates is not None:
        candidates = candidates.with_more(waiting.take(order[order >= n_decoded] - n_decoded))
    log_probs = np.concatenate([decoded.log_probs, waiting.log_probs])
    return replace(decoded, items=items[order], scores=scores[order], log_probs=log_probs[order], candidates=candidates)


def _keys(items: IntArray, scores: FloatArray, request: ListRequest) -> Float64Array:
    """The sampler's own sort keys (`export.graphs.sampler`), up to a constant: score ÷ temperature + noise."""
    noise = gumbel(item_hash(items), request.seed)
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
