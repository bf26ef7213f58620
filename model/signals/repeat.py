"""Repeat purchase: the user's own items, by how often and how recently."""

from __future__ import annotations

from model.signals.data import SignalData
from service.artifact.scorers.own_items import OwnItems

DECAY = 0.995


def fit(data: SignalData) -> OwnItems:
    """Returns how own items are scored."""
    return OwnItems(data.train.n_items, DECAY)
