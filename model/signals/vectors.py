"""Vectors: items whose given vectors (of images, audio, a graph, …) point the same way, by their cosine."""

from __future__ import annotations

from model.signals.data import SignalData
from model.signals.texts import nearest
from service.artifact.scorers.neighbour_table import NeighbourTable


def fit(data: SignalData) -> NeighbourTable | None:
    """Returns the items nearest by vector; None without vectors, and for more items than texts are compared for."""
    return nearest(data.vectors)
