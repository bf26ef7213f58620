"""Directed transitions: what follows the items of a history, in order."""

from __future__ import annotations

from model.signals.data import SignalData
from service.artifact.scorers.neighbour_table import NeighbourTable


def fit(data: SignalData) -> NeighbourTable | None:
    """Returns the transitions of the training part (`transition_table`); None if no item follows another."""
    return data.transitions
