"""Directed transitions: which items follow an item.

`t(i, j) = Σ 1/distance ÷ √(count_i · count_j)` over all places where j comes up to `REACH` events after i in a history.

The sum is counted in units of 1/2520, of which every distance up to ten has a whole number. So it is an integer, the
same in whatever order, in however many parts, and by whatever engine the places are counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from scipy import sparse

from model.data.dataset import Sequences
from model.data.long_histories import ITEM_CF_EVENTS, newest
from model.signals.neighbour_rows import Rows, blocks
from service.artifact.array_types import IntArray
from service.artifact.scorers.neighbour_table import NeighbourTable

REACH = 10
NEIGHBOURS = 200
DECAY = 0.8
HORIZON = 10
UNITS = 2520
# Events whose pairs are counted at once; bounds the memory.
_EVENTS_AT_ONCE = 1 << 20


def transition_table(train: Sequences) -> NeighbourTable | None:
    """Counts the transitions of a log; None if no item follows another.

    Pairs of the same item are left out. Of a user with more than `ITEM_CF_EVENTS` events the newest are counted.
    """
    train = newest(train, ITEM_CF_EVENTS)
    counts = np.bincount(train.item, minlength=train.n_items).astype(np.int64)
    return table_of(counts, _in_blocks(transition_counts(train)))


def table_of(counts: IntArray, rows: Iterable[tuple[int, sparse.csr_array]]) -> NeighbourTable | None:
    """Makes the table out of integers; None if no item follows another.

    Args:
        counts: [items] events of each item.
        rows: The first item and the integers of each range of items, as `transition_counts` returns them.
    """
    scale = counts.clip(min=1).astype(np.float64) ** -0.5
    table = Rows(len(counts), NEIGHBOURS)
    for start, block in rows:
        row = np.repeat(np.arange(start, start + block.shape[0]), np.diff(block.indptr))
        values = block.data / UNITS * scale[row] * scale[block.indices]
        table.add(start, sparse.csr_array((values, block.indices, block.indptr), shape=block.shape))
    return table.table(DECAY, HORIZON)


def transition_counts(train: Sequences) -> sparse.csr_array:
    """Returns Σ 1/distance over the pairs of a log in units of 1/2520, int64 [items, items].

    The results of logs with other users add up. The caller bounds the histories (`ITEM_CF_EVENTS`).
    """
    n = train.n_items
    user = np.repeat(np.arange(train.n_users), train.lengths)
    total = sparse.csr_array((n, n), dtype=np.int64)
    for start in range(0, train.n_events, _EVENTS_AT_ONCE):
        rows, columns, values = [], [], []
        for distance in range(1, REACH + 1):
            first = np.arange(start, min(start + _EVENTS_AT_ONCE, train.n_events - distance))
            second = first + distance
            kept = (user[first] == user[second]) & (train.item[first] != train.item[second])
            rows.append(train.item[first[kept]].astype(np.int32))
            columns.append(train.item[second[kept]].astype(np.int32))
            values.append(np.full(int(kept.sum()), UNITS // distance, np.int64))
        coordinates = (np.concatenate(rows), np.concatenate(columns))
        total = total + sparse.coo_array((np.concatenate(values), coordinates), shape=(n, n)).tocsr()
    total = sparse.csr_array(total)
    total.sort_indices()
    return total


def _in_blocks(counts: sparse.csr_array) -> Iterator[tuple[int, sparse.csr_array]]:
    for part in blocks(counts.shape[0], counts.shape[0]):
        yield part.start, counts[part]
