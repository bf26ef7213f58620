"""Untrained heuristics published for these data, as rankers.

TGH, the transition-graph heuristic of Han et al. (2026), "An Embarrassingly Simple Graph Heuristic Reveals
Shortcut-Solvable Benchmarks for Sequential Recommendation" (arXiv 2605.07125). It was written from the description and
the program that its authors publish (github.com/haoyuhan1/GraphRec, `src/tgh.py`); the tables of the paper could not be
read. A directed edge joins two items that follow each other in a training history; the ring h of an item holds the
items that are exactly h edges away. Within a ring, items are ranked by the cosine of their features with those of the
source, and in ring 1 by that plus α · log(1 + n) / its largest value of the source, n being how often the edge was
taken.

- TGH-1 takes 7, 2 and 1 items from the rings 1, 2 and 3 of the last item;
- TGH-2 takes 5 and 1 from the rings 1 and 2 of the last item, then 3 and 1 from those of the last but one.

Where a ring is too small, what earlier rings have left over comes first. Three things differ from its program: items of
the history are taken out before (as in all lists here), a list that is still too short is filled by the cosine with the
last item instead of at random (its option `--semantic_pad`), and features are the sentence vectors of this repository
or, where there are no texts, too many of them or no encoder, categories and attributes, instead of flan-t5-xl.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from scipy import sparse

from model.data.dataset import Dataset
from model.data.dataset import Sequences as Log
from model.data.split import Split
from model.evaluation import metrics
from model.evaluation.evaluate import DEPTH, Histories, Ranker
from model.texts.sentence_vectors import TextError, item_text_vectors
from service.artifact.array_types import Float64Array, FloatArray, IntArray

EDGE_WEIGHT = 0.5
# Items of a list from each ring of the last item, and of the last but one.
TGH_1 = ((7, 2, 1),)
TGH_2 = ((5, 1), (3, 1))

# More texts than these take the encoder many minutes on one core.
ENCODED_AT_MOST = 30_000

_NOTHING: IntArray = np.zeros(0, np.int64)


@dataclass(frozen=True, eq=False)
class TransitionGraph:
    """Which item followed which, and how much alike items are.

    Attributes:
        edges: [items, items] log(1 + how often the column followed the row), divided by the row's largest.
        features: [items, features] rows of length 1, or 0 where nothing is known of an item.
    """

    edges: sparse.csr_array
    features: sparse.csr_array

    @classmethod
    def fit(cls, train: Log, features: sparse.csr_array) -> Self:
        """Counts the transitions of the training part; `features` need not have length 1."""
        user = np.repeat(np.arange(train.n_users), train.lengths)
        same = user[1:] == user[:-1]
        pairs = train.item[:-1][same], train.item[1:][same]
        edges = sparse.csr_array((np.ones(len(pairs[0])), pairs), shape=(train.n_items, train.n_items))
        edges.sum_duplicates()
        edges.data = np.log1p(edges.data)
        largest = np.asarray(edges.max(axis=1).todense()).ravel()
        largest[largest == 0] = 1.0
        edges = sparse.csr_array(sparse.diags_array(1 / largest) @ edges)
        edges.sort_indices()
        length = np.sqrt(np.asarray(features.multiply(features).sum(axis=1), np.float64).ravel())
        length[length == 0] = 1.0
        return cls(edges, sparse.csr_array(sparse.diags_array(1 / length) @ features))

    def rings(self, source: int, depth: int) -> list[IntArray]:
        """Returns the items exactly 1 … depth edges away from an item, ascending; the item itself is in none."""
        visited = np.zeros(self.edges.shape[0], bool)
        visited[source] = True
        ring, found = np.array([source], np.int64), []
        for _ in range(depth):
            ends = [self.edges.indices[self.edges.indptr[item] : self.edges.indptr[item + 1]] for item in ring]
            reached = np.unique(np.concatenate(ends)).astype(np.int64) if ends else _NOTHING
            ring = reached[~visited[reached]]
            visited[ring] = True
            found.append(ring)
        return found

    def alike(self, source: int) -> Float64Array:
        """Returns the cosine [items] of every item with one."""
        return np.asarray((self.features @ self.features[[source]].T).todense(), np.float64).ravel()

    def picks(self, source: int, budgets: Sequence[int], taken: IntArray) -> tuple[list[int], list[int]]:
        """Returns the items from the rings of one source.

        Args:
            source: The item in the middle.
            budgets: How many of each ring.
            taken: Items that must not be chosen.

        Returns:
            The chosen items, at most as many as the budgets hold, and what the rings had left over, in order.
        """
        cosine = self.alike(source)
        chosen: list[int] = []
        left: list[int] = []
        for number, (ring, budget) in enumerate(zip(self.rings(source, len(budgets)), budgets, strict=True)):
            free = ring[~np.isin(ring, taken)]
            score = cosine[free]
            if number == 0:
                score = score + EDGE_WEIGHT * self.edges[[source]].toarray().ravel()[free]
            best = free[np.argsort(-score, kind="stable")].tolist()
            from_before = left[: max(0, budget - len(best))]
            left = left[len(from_before) :]
            own = budget - len(from_before)
            chosen += from_before + best[:own]
            left += best[own : sum(budgets)]
        missing = sum(budgets) - len(chosen)
        return chosen + left[:missing], left[missing:]

    def ranker(self, budgets: Sequence[Sequence[int]]) -> Ranker:
        """Returns lists from the rings of the newest items, a tuple of budgets for each, the last item first."""

        def rank(histories: Histories) -> IntArray:
            lists = np.full((len(histories), DEPTH), -1, np.int64)
            for i in range(len(histories)):
                found = self._listed(histories.items(i), histories.excluded(i), budgets)
                lists[i, : len(found)] = found
            return lists

        return rank

    def _listed(self, history: IntArray, excluded: IntArray, budgets: Sequence[Sequence[int]]) -> list[int]:
        found: list[int] = []
        left: list[int] = []
        for source, of_source in zip(history[::-1].tolist(), budgets, strict=False):
            chosen, over = self.picks(source, of_source, np.concatenate([excluded, np.array(found, np.int64)]))
            found += chosen
            left += over
        found = list(dict.fromkeys([*found, *left]))[:DEPTH]
        if len(found) < DEPTH and len(history):
            cosine = self.alike(int(history[-1]))
            cosine[excluded] = -np.inf
            cosine[found] = -np.inf
            nearest = np.argsort(-cosine, kind="stable")[: DEPTH - len(found)]
            found += nearest[np.isfinite(cosine[nearest])].tolist()
        return found


def text_vectors(dataset: Dataset, data: Path, item_ids: Sequence[str]) -> FloatArray | None:
    """Returns the sentence vectors [items, d]; None without texts or encoder, or for too many items to encode here."""
    if len(item_ids) > ENCODED_AT_MOST:
        return None
    try:
        return item_text_vectors(dataset, item_ids, data)
    except TextError:
        return None


def item_features(dataset: Dataset, data: Path, item_ids: Sequence[str]) -> sparse.csr_array:
    """Returns [items, features]: sentence vectors with texts and the encoder, else categories and attributes."""
    vectors = text_vectors(dataset, data, item_ids)
    if vectors is None:
        return metrics.item_content(dataset.items, item_ids, dataset.category_kind)
    return sparse.csr_array(vectors.astype(np.float64))


def heuristics(dataset: Dataset, data: Path, split: Split) -> dict[str, Ranker]:
    """Returns the heuristics, fitted on the training part, by the name of their row."""
    graph = TransitionGraph.fit(split.train, item_features(dataset, data, split.sequences.item_ids))
    return {"TGH-1, no training": graph.ranker(TGH_1), "TGH-2, no training": graph.ranker(TGH_2)}
