"""Cold: which items have no events, but content that tells which items they are like.

Its weight is no part of what is learned. It is chosen so that it costs items with events little (`model.ranking`).
"""

from __future__ import annotations

import numpy as np

from model.signals.data import SignalData
from service.artifact.scorers.item_column import ItemColumn


def fit(data: SignalData) -> ItemColumn | None:
    """Returns 1 for each of these items and 0 for all others; None if there are none."""
    if not len(data.cold):
        return None
    values = np.zeros(data.train.n_items, np.float32)
    values[data.cold.items] = 1
    return ItemColumn(values)
