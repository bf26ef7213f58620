"""Directed transitions: which items follow an item.

`t(i, j) = Σ 1/distance ÷ √(count_i · count_j)` over all places where j comes up to `REACH` events after i in a history.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from model.data.dataset import Sequences
from model.data.long_histories import ITEM_CF_EVENTS, newest
from model.signals.neighbour_rows import Rows, blocks
from service.artifact.neighbour_table import NeighbourTable

REACH = 10
NEIGHBOURS = 200
DECAY = 0.8
HORIZON = 10
# Events whose pairs are counted at once; bounds the memory.
_EVENTS_AT_ONCE = 1 << 20


def transition_table(train: Sequences) -> NeighbourTable | None:
    """Counts the transitions of a log; None if no item follows another.

    Pairs of the same item are left out. Of a user with more than `ITEM_CF_EVENTS` events the newest are counted.
    """
    train = newest(train, ITEM_CF_EVENTS)
    n = train.n_items
    count = np.bincount(train.item, minlength=n).clip(min=1)
    scale = sparse.diags_array(count.astype(np.float64) ** -0.5)
    pairs = sparse.csr_array(scale @ _pairs(train) @ scale)
    rows = Rows(n, NEIGHBOURS)
    for part in blocks(n, n):
        rows.add(part.start, pairs[part])
    return rows.table(DECAY, HORIZON)


def _pairs(train: Sequences) -> sparse.csr_array:
    """[items, items] Σ 1/distance over the pairs of a log."""
    n = train.n_items
    user = np.repeat(np.arange(train.n_users), train.lengths)
    total = sparse.csr_array((n, n), dtype=np.float64)
    for start in range(0, train.n_events, _EVENTS_AT_ONCE):
        rows, columns, values = [], [], []
        for distance in range(1, REACH + 1):
            first = np.arange(start, min(start + _EVENTS_AT_ONCE, train.n_events - distance))
            second = first + distance
            kept = (user[first] == user[second]) & (train.item[first] != train.item[second])
            rows.append(train.item[first[kept]].astype(np.int32))
            columns.append(train.item[second[kept]].astype(np.int32))
            values.append(np.full(int(kept.sum()), 1 / distance))
        coordinates = (np.concatenate(rows), np.concatenate(columns))
        total = total + sparse.coo_array((np.concatenate(values), coordinates), shape=(n, n)).tocsr()
    return sparse.csr_array(total)
