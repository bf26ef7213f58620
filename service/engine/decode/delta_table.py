"""Items that came after the export, until the next build of the trie takes them in.

A new item is placed where the items it is like are: its vector points along the mean of theirs. It has no path yet, so
q · e + offset stands for the log-probability of its path as well as for its dense score. The offset is the decoder's,
log Σ p(path) − logsumexp(dense) over its candidates. What signals add is what they add to the item's stand-in.

In a deterministic list, waiting items are ranked among those of the graph. A sampled list is drawn anew from the
candidates of the graph and the waiting items together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from service.artifact.array_types import BoolArray, FloatArray, IntArray
from service.artifact.graphs.noise import item_hash
from service.common.errors import ModelError
from service.engine.candidates import Candidates
from service.engine.decode.draws import draw
from service.engine.draw import Draw
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
        scores: WaitingScores,
        request: ListRequest,
        allowed: BoolArray,
        hashes: Callable[[IntArray], IntArray] = item_hash,
    ) -> DecodedList:
        """Merges waiting items into a list.

        Args:
            decoded: The decoder's list.
            scores: What the waiting items are worth to this row.
            request: What was requested; its excluded items stay out.
            allowed: [m] whether the request's filter allows each waiting item.
            hashes: The hashes of items, from which the noise of a sampled list follows.

        Returns:
            At most `request.length` items, without repeats.
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
        if request.decoding.sampled:
            return _drawn(decoded, waiting, score, request, hashes)
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
    order = np.argsort(-scores, kind="stable")[: request.length]
    candidates = _explained(decoded.candidates, waiting, order - len(decoded.items))
    log_probs = np.concatenate([decoded.log_probs, waiting.log_probs])
    return replace(decoded, items=items[order], scores=scores[order], log_probs=log_probs[order], candidates=candidates)


def _drawn(
    decoded: DecodedList,
    waiting: Candidates,
    score: FloatArray,
    request: ListRequest,
    hashes: Callable[[IntArray], IntArray],
) -> DecodedList:
    """Draws a list anew, from the candidates of the graph and waiting items of these scores, with the same noise.

    Raises:
        ModelError: The list came without its candidates.
    """
    before = decoded.draw
    if before is None or before.log_probs is None:
        raise ModelError("a sampled list came without its candidates, so waiting items cannot be drawn with them")
    items = np.concatenate([before.items, waiting.items])
    scores = np.concatenate([before.scores, score])
    order, log_propensities = draw(hashes(items), scores, request.decoding, request.seed, request.k)
    log_probs = np.concatenate([before.log_probs, waiting.log_probs])
    return replace(
        decoded,
        items=items[order],
        scores=scores[order],
        log_probs=log_probs[order],
        candidates=_explained(decoded.candidates, waiting, order - len(before.items)),
        draw=Draw(log_propensities, items, scores, log_probs),
    )


def _explained(candidates: Candidates | None, waiting: Candidates, listed: IntArray) -> Candidates | None:
    """Adds the waiting items that are listed, at places from 0 on, to the candidates that explain a list."""
    return None if candidates is None else candidates.with_more(waiting.take(listed[listed >= 0]))


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
