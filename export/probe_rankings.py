"""How the parity gate has its probes ranked: by every group of users, with and without signals of a user."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.reference.decoder import Scoring
from service.signals.item_values import NO_VALUES, ItemValues
from service.signals.ranker import Ranker

# Signals of a probe, in a catalogue that has so many items, and the largest of them, in log-probabilities.
SIGNALS, LARGEST_SIGNAL = 200, 4.0


@dataclass(frozen=True)
class ProbeRanking:
    """How the lists of one probe are ranked.

    Attributes:
        group: Number of the group of users that the probe asks as.
        signals: What a user's signals add to the score of each item.
        weights: Weights of the path and of the dense score; None: those of the group.
        scoring: The same for the slow reference.
    """

    group: int
    signals: ItemValues
    weights: tuple[float, float] | None
    scoring: Scoring


def probe_ranking(ranker: Ranker, number: int) -> ProbeRanking:
    """Returns how the lists of a probe are ranked.

    The probes take turns in asking as a user of each group. In every second turn they carry random signals, with
    weights of their own.

    Args:
        ranker: The artefact's ranker.
        number: The probe's number.
    """
    turn, group = divmod(number, len(ranker.weights.groups))
    bias = dict(enumerate(ranker.bias(group).tolist()))
    if turn % 2 == 0:
        return ProbeRanking(group, NO_VALUES, None, Scoring(*ranker.network(group), bias=bias))
    rng = np.random.default_rng(number)
    items = np.sort(rng.choice(ranker.n_items, min(SIGNALS, ranker.n_items), replace=False))
    values = (rng.random(len(items)) * LARGEST_SIGNAL).astype(np.float32)
    path, dense = (float(weight) for weight in rng.uniform(0.1, 1.0, 2))
    signals = dict(zip(items.tolist(), values.tolist(), strict=True))
    return ProbeRanking(group, ItemValues(items, values), (path, dense), Scoring(path, dense, signals, bias))
