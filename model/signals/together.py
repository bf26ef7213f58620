"""What is taken together in one basket.

A basket is what one user takes at one time: their events of one session where the log knows sessions, else those of
one timestamp. Of a log with purchases these alone count, of any other all events.

`t(i, j) = n_ij ÷ (√(n_i · n_j) + 1)`, where n_ij is the number of baskets with both items: the cosine of Linden, Smith
and York (2003) over baskets, in which a pair that was seen once is worth at most a half.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from model.data.dataset import Sequences
from model.signals.neighbour_rows import Rows, blocks
from service.artifact.array_types import IntArray
from service.artifact.features import EVENT_TYPES
from service.artifact.scorers.neighbour_table import NeighbourTable

NEIGHBOURS = 100
# More items than people put into a basket: an import, or a log whose times are days.
LARGEST = 100
_HORIZON = 100
_PURCHASE = EVENT_TYPES.index("purchase")


def together_table(train: Sequences) -> NeighbourTable | None:
    """Counts what is in baskets together; None if no basket has two items.

    Args:
        train: The training part. Events beyond the catalogue, such as searches, are in no basket.
    """
    baskets, items = baskets_of(train)
    if not len(items):
        return None
    n = train.n_items
    inside = sparse.csr_array((np.ones(len(items)), (baskets, items)), shape=(int(baskets.max()) + 1, n))
    count = np.asarray(inside.sum(axis=0)).ravel()
    rows, by_item = Rows(n, NEIGHBOURS), sparse.csr_array(inside.T)
    for part in blocks(n, n):
        pairs = sparse.coo_array(by_item[part] @ inside)
        scale = np.sqrt(count[pairs.row + part.start] * count[pairs.col]) + 1.0
        rows.add(part.start, sparse.csr_array((pairs.data / scale, (pairs.row, pairs.col)), shape=pairs.shape))
    return rows.table(1.0, _HORIZON)


def baskets_of(train: Sequences) -> tuple[IntArray, IntArray]:
    """Returns the baskets with 2 to `LARGEST` items: number of the basket and item, one pair for each item in it."""
    none = np.zeros(0, np.int64)
    if not train.has_time and train.session is None:
        return none, none
    user = np.repeat(np.arange(train.n_users), train.lengths)
    session = np.zeros(train.n_events, np.int64) if train.session is None else train.session.astype(np.int64)
    known = session > 0
    kept = (train.item < train.n_items) & (known | train.has_time)
    if (train.type[kept] == _PURCHASE).any():
        kept &= train.type == _PURCHASE
    when = np.where(known, session, train.time_ms)
    rows = np.unique(np.stack([user[kept], known[kept], when[kept], train.item[kept]], axis=1), axis=0)
    if not len(rows):
        return none, none
    changes = (rows[1:, :3] != rows[:-1, :3]).any(axis=1)
    basket = np.concatenate([[0], np.cumsum(changes)])
    size = np.bincount(basket)[basket]
    fits = (size > 1) & (size <= LARGEST)
    return basket[fits], rows[fits, 3]
