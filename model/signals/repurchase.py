"""Repurchase: the user's own items, by how often and how recently, and by how readily each is taken again.

Milk is bought again, a pan is not. `repurchase(i) = (again_i + SMOOTHING · g) ÷ (events_i + SMOOTHING)`, where again_i
counts the events of the item beyond the first of each user, and g is their share of all events.
"""

from __future__ import annotations

import numpy as np

from model.signals.data import SignalData
from model.signals.repeat import DECAY
from service.artifact.scorers.own_items import OwnItems

# Events at the mean rate that every item begins with.
SMOOTHING = 20.0


def fit(data: SignalData) -> OwnItems | None:
    """Returns how own items are scored; None in a log in which nobody took anything again."""
    train = data.train
    user = np.repeat(np.arange(train.n_users, dtype=np.int64), train.lengths)
    taken = np.unique(user * train.n_items + train.item)
    events = np.bincount(train.item, minlength=train.n_items)
    again = events - np.bincount(taken % max(train.n_items, 1), minlength=train.n_items)
    if not again.sum():
        return None
    mean = again.sum() / events.sum()
    rate = (again + SMOOTHING * mean) / (events + SMOOTHING)
    return OwnItems(train.n_items, DECAY, rate.astype(np.float32))
