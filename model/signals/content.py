"""Content: items with the same attributes, categories and brand, by the cosine of idf-weighted features.

Items without events are rows and columns as well: that is how cold items come into lists.
"""

from __future__ import annotations

from scipy import sparse

from model.signals.data import SignalData
from model.signals.features import unit_features
from model.signals.neighbour_rows import Rows, blocks
from service.artifact.scorers.neighbour_table import NeighbourTable

NEIGHBOURS = 200
DECAY = 0.8
HORIZON = 10


def fit(data: SignalData) -> NeighbourTable | None:
    """Returns the items nearest by content; None if no two items share a feature that not all items have."""
    unit = unit_features(data.dataset, data.train.item_ids)
    n = unit.shape[0]
    other = sparse.csr_array(unit.T)
    rows = Rows(n, NEIGHBOURS)
    for part in blocks(n, n):
        rows.add(part.start, unit[part] @ other)
    return rows.table(DECAY, HORIZON)
