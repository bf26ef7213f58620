"""Two-step transitions: what follows an item's followers, the product of the transition table with itself."""

from __future__ import annotations

from model.signals.data import SignalData
from model.signals.neighbour_rows import Rows, blocks, matrix_of
from service.artifact.scorers.neighbour_table import NeighbourTable

NEIGHBOURS = 200
DECAY = 0.8
HORIZON = 10


def fit(data: SignalData) -> NeighbourTable | None:
    """Returns the two-step transitions, without ways back to the item itself; None if there are none."""
    if data.transitions is None:
        return None
    step = matrix_of(data.transitions)
    n, width = data.transitions.neighbour.shape
    rows = Rows(n, NEIGHBOURS)
    for part in blocks(n, min(n, width * width)):
        rows.add(part.start, step[part] @ step)
    return rows.table(DECAY, HORIZON)
