"""Gives cold items a place in what signals learned from events."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np
from scipy import sparse

from model.signals.cold_items import ColdItems
from model.signals.neighbour_rows import Rows, blocks, largest, matrix_of
from service.artifact.scorers.item_column import ItemColumn
from service.artifact.scorers.neighbour_table import NeighbourTable
from service.artifact.scorers.own_items import OwnItems
from service.artifact.scorers.popularity import Popularity
from service.artifact.scorers.signal_files import SignalPart

# Cold neighbours kept for each item, beside all those that the table has.
COLD_NEIGHBOURS = 64

Table = TypeVar("Table", bound=NeighbourTable)


def imputed(part: SignalPart, cold: ColdItems) -> SignalPart:
    """Returns what a signal was fitted to, with cold items in the places of the items that stand in for them."""
    match part:
        case NeighbourTable():
            return _table(part, cold)
        case ItemColumn():
            return ItemColumn(cold.column(part.values))
        case Popularity():
            return replace(part, log_count=cold.column(part.log_counts()))
        case OwnItems():  # what a user took is known of every item
            return part


def _table(table: Table, cold: ColdItems) -> Table:
    """Returns a table with rows and columns of cold items, which have none in a table of events.

    The row of a cold item is the mean row of what stands in for it, its column the mean of their columns. Every row
    keeps the neighbours it had: cold ones get places beside them. So the score of an item with events stays the same to
    the bit where the history has no cold item, and no cold item scores above the best of those.
    """
    table = _with_rows(table, cold)
    step, n = matrix_of(table), table.n_items
    columns = Rows(n, COLD_NEIGHBOURS)
    for part in blocks(n, len(cold)):
        found = sparse.csr_array(step[part] @ cold.share)
        found.sort_indices()
        columns.add(
            part.start,
            sparse.csr_array((found.data, cold.items[found.indices], found.indptr), (len(range(n)[part]), n)),
        )
    return _beside(table, columns)


def _with_rows(table: Table, cold: ColdItems) -> Table:
    """Returns the table with the rows of cold items: the largest values of the mean rows, as many as others have."""
    neighbour, similarity = table.neighbour.copy(), table.similarity.copy()
    step, width = matrix_of(table), table.neighbour.shape[1]
    for part in blocks(len(cold), table.n_items):
        mean = sparse.csr_array(cold.by_item[part] @ step)
        for row, item in enumerate(cold.items[part].tolist()):
            span = slice(mean.indptr[row], mean.indptr[row + 1])
            columns, values = largest(mean.indices[span], mean.data[span], width, item)
            neighbour[item], similarity[item] = item, 0
            neighbour[item, : len(columns)], similarity[item, : len(columns)] = columns, values
    return type(table)(neighbour, similarity, table.decay, table.horizon)


def _beside(table: Table, more: Rows) -> Table:
    """Returns the table with more neighbours, all of them new to their rows."""
    neighbour, similarity = (
        np.concatenate(both, axis=1) for both in zip((table.neighbour, table.similarity), more.arrays(), strict=True)
    )
    for part in blocks(*neighbour.shape):
        order = np.argsort(-similarity[part], axis=1, kind="stable")
        neighbour[part] = np.take_along_axis(neighbour[part], order, axis=1)
        similarity[part] = np.take_along_axis(similarity[part], order, axis=1)
    return type(table)(neighbour, similarity, table.decay, table.horizon)
