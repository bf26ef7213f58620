"""The signals of an artefact as rankers: each alone, and all of them without the network, as the rung below ranks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from model.evaluation.evaluate import DEPTH, Histories, Ranker
from model.evaluation.rankers import history_of
from service.artifact.array_types import IntArray
from service.artifact.artifact import Artifact
from service.artifact.scorers.signal_files import COLD, ITEM_CF, POPULARITY
from service.engine.baseline_engine import FUSED
from service.engine.fallback import Constraints, Fallback
from service.signals.ranker import Ranker as Signals


def signal_rankers(artifact: Artifact, *, each: bool) -> dict[str, Ranker]:
    """Returns rankers by name, which list as the service does.

    Args:
        artifact: The artefact.
        each: Whether each signal ranks alone, too. Item-CF and popularity are left out: they have rows of their own;
            so is the mark of cold items, which ranks nothing.
    """
    weights = artifact.ranker
    rankers: dict[str, Ranker] = {}
    if {name for name, weight in weights.without_network.items() if weight} != {ITEM_CF}:
        rankers[FUSED] = _ranker(artifact, weights.without_network)
    names = [name for name in weights.signals if name not in (ITEM_CF, POPULARITY, COLD)] if each else []
    return rankers | {name: _ranker(artifact, {name: 1.0}) for name in names}


def _ranker(artifact: Artifact, weights: Mapping[str, float]) -> Ranker:
    signals = Signals.of(artifact.signals, replace(artifact.ranker, without_network=weights))
    below = Fallback.of(artifact.item_cf, artifact.popularity, signals)
    kept, has_time = artifact.receptive_field, artifact.vocabulary.has_time

    def rank(histories: Histories) -> IntArray:
        lists = np.full((len(histories), DEPTH), -1, np.int64)
        for i in range(len(histories)):
            history = history_of(histories.events(i), kept, has_time)
            items = below.by_history(history, DEPTH, Constraints(None, histories.excluded(i))).items
            lists[i, : len(items)] = items
        return lists

    return rank
