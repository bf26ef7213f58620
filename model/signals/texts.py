"""Texts: items with similar texts, by the cosine of their sentence vectors."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from model.signals.data import SignalData
from model.signals.features import unit_rows
from model.signals.neighbour_rows import Rows, blocks
from service.artifact.array_types import FloatArray
from service.artifact.scorers.neighbour_table import NeighbourTable

NEIGHBOURS = 200
DECAY = 0.8
HORIZON = 10
# All pairs of items are compared; beyond this many that takes longer than an export should.
ITEMS_MAX = 150_000


def fit(data: SignalData) -> NeighbourTable | None:
    """Returns the items nearest by text; None without texts, and for more than `ITEMS_MAX` items."""
    return nearest(data.texts)


def nearest(vectors: FloatArray | None) -> NeighbourTable | None:
    """Returns the items whose vectors [items, d] are nearest by their cosine; None without, and beyond `ITEMS_MAX`."""
    if vectors is None or len(vectors) > ITEMS_MAX:
        return None
    unit = unit_rows(vectors)
    rows = Rows(len(unit), NEIGHBOURS)
    for part in blocks(len(unit), len(unit)):
        cosine = unit[part] @ unit.T
        cosine[np.arange(len(cosine)), np.arange(part.start, part.stop)] = 0
        least = np.partition(cosine, -min(NEIGHBOURS, cosine.shape[1]), axis=1)[:, -min(NEIGHBOURS, cosine.shape[1])]
        rows.add(part.start, sparse.csr_array(np.where(cosine >= least[:, None], cosine, 0)))
    return rows.table(DECAY, HORIZON)
