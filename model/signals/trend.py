"""Trend: whether an item is on the rise.

`x(i) = log((new_i + SMOOTHING) ÷ (expected_i + SMOOTHING))`, where new_i counts the item's events among the newest
tenth of all, and expected_i is the item's share of all events times the number of the newest. The smoothing keeps the
ratio of rare items near 1.
"""

from __future__ import annotations

import numpy as np

from model.signals.data import SignalData
from service.artifact.scorers.item_column import ItemColumn

NEWEST = 0.1
SMOOTHING = 5.0


def fit(data: SignalData) -> ItemColumn | None:
    """Returns the trend of each item; None in a log without times, or in which all events have the same time."""
    train = data.train
    if not train.has_time or not train.n_events:
        return None
    boundary = np.sort(train.time_ms)[int(train.n_events * (1 - NEWEST))]
    new = train.time_ms >= boundary
    if new.all():
        return None
    every = np.bincount(train.item, minlength=train.n_items)
    newest = np.bincount(train.item[new], minlength=train.n_items)
    expected = every * (newest.sum() / train.n_events)
    return ItemColumn(np.log((newest + SMOOTHING) / (expected + SMOOTHING)).astype(np.float32))
