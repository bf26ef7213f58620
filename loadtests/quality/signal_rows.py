"""Each signal as a scorer of its own, as rankers.

Every list is made from the sum over the whole catalogue, the plain way, and filled up with popularity.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from loadtests.quality.heuristics import text_vectors
from model.data.dataset import Dataset
from model.data.split import Split
from model.evaluation.baselines import fit_baselines
from model.evaluation.evaluate import DEPTH, Histories, Ranker
from model.evaluation.rankers import history_of
from model.signals.data import SignalData
from model.signals.registry import fit_signals
from service.artifact.array_types import Float64Array, IntArray
from service.artifact.scorers.popularity import Popularity
from service.artifact.scorers.ranker_weights import DEFAULT_GROUP, RankerWeights
from service.artifact.scorers.signal_files import COLD, ITEM_CF
from service.signals.ranker import Ranker as Signals
from service.signals.user_history import UserHistory

# Newest events that the service keeps as they are, with one layer; what is older is remembered by item.
KEPT = 52

# The sum of each item [items], −∞ where nothing is said of it.
Sum = Callable[[UserHistory], Float64Array]


def alone(dataset: Dataset, data: Path, split: Split) -> dict[str, Ranker]:
    """Returns every signal that the data have something for, fitted on the training part, by the name of its row.

    Item-CF has a row anyway, and the mark of cold items ranks nothing.
    """
    fitted = fit_baselines(split)
    texts = text_vectors(dataset, data, split.sequences.item_ids)
    parts = fit_signals(SignalData(split.train, dataset, fitted.item_cf, fitted.popularity, texts))
    found = {}
    for name in parts:
        if name not in (ITEM_CF, COLD):
            weights = RankerWeights(tuple(parts), {DEFAULT_GROUP: {name: 1.0}})
            signals = Signals.of(parts, weights)
            found[f"{name} alone"] = ranker(_sum_of(signals), fitted.popularity, KEPT, dataset.has_time)
    return found


def ranker(total: Sum, popularity: Popularity, kept: int, has_time: bool) -> Ranker:
    """Returns lists by a sum [items]; items without any value come after the others, by popularity.

    Args:
        total: The sum for a history.
        popularity: What fills a list up.
        kept: Newest events of a history that signals read as they are.
        has_time: Whether the log has times.
    """

    def rank(histories: Histories) -> IntArray:
        lists = np.full((len(histories), DEPTH), -1, np.int64)
        for i in range(len(histories)):
            score = total(history_of(histories.events(i), kept, has_time))
            excluded = histories.excluded(i)
            score[excluded] = -np.inf
            best = np.argsort(-score, kind="stable")[:DEPTH]
            best = best[np.isfinite(score[best])]
            items, _ = popularity.fill(best, score[best].astype(np.float32), DEPTH, None, excluded)
            lists[i, : len(items)] = items
        return lists

    return rank


def _sum_of(signals: Signals) -> Sum:
    """Returns the weighted sum of all signals over the whole catalogue; −∞ for items of which none says anything."""
    bias = signals.bias().astype(np.float64)

    def total(history: UserHistory) -> Float64Array:
        values = signals.user(history)
        dense = np.where(bias == 0, -np.inf, bias)
        dense[values.items] = bias[values.items] + values.values
        return dense

    return total
