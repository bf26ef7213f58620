"""Neighbour tables out of sparse matrices: the largest values of each row, block by block."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy import sparse

from service.artifact.array_types import Array, FloatArray
from service.artifact.scorers.neighbour_table import NeighbourTable

# Values of a product that are held at once; bounds the memory to a few hundred megabytes.
_VALUES_AT_ONCE = 1 << 24


def blocks(n_rows: int, values_per_row: int) -> Iterator[slice]:
    """Yields ranges of rows whose product fits into memory.

    Args:
        n_rows: Number of rows in all.
        values_per_row: The most values that a row of the product can have.
    """
    step = max(1, _VALUES_AT_ONCE // max(1, values_per_row))
    for start in range(0, n_rows, step):
        yield slice(start, min(start + step, n_rows))


class Rows:
    """Collects the largest values of each row into a neighbour table.

    Args:
        n_items: Number of items: rows and columns.
        width: Neighbours kept for each item.
    """

    def __init__(self, n_items: int, width: int) -> None:
        self._width = min(width, max(1, n_items - 1))
        self._neighbour = np.repeat(np.arange(n_items, dtype=np.int32)[:, None], self._width, axis=1)
        self._similarity = np.zeros((n_items, self._width), np.float32)

    def add(self, start: int, block: sparse.csr_array) -> None:
        """Takes the rows from `start` on: the largest positive values, without the item itself; ties to lower items."""
        block = sparse.csr_array(block)
        for row in range(block.shape[0]):
            span = slice(block.indptr[row], block.indptr[row + 1])
            columns, values = largest(block.indices[span], block.data[span], self._width, start + row)
            self._neighbour[start + row, : len(columns)] = columns
            self._similarity[start + row, : len(columns)] = values

    def arrays(self) -> tuple[npt.NDArray[np.int32], FloatArray]:
        """Returns neighbours and similarities [items, n], no wider than the longest row."""
        width = int((self._similarity > 0).sum(axis=1).max(initial=0))
        return np.ascontiguousarray(self._neighbour[:, :width]), np.ascontiguousarray(self._similarity[:, :width])

    def table(self, decay: float, horizon: int) -> NeighbourTable | None:
        """Returns the table, no wider than its longest row; None if no item has a neighbour."""
        neighbour, similarity = self.arrays()
        return NeighbourTable(neighbour, similarity, decay, horizon) if neighbour.shape[1] else None


def largest(columns: Array, values: Array, most: int, itself: int = -1) -> tuple[Array, FloatArray]:
    """Returns at most `most` positive values of a row in float32, the largest first, ties to the lower columns.

    Args:
        columns: [n] columns of the values.
        values: [n] values.
        most: The most values that are kept.
        itself: A column that is left out.
    """
    values = values.astype(np.float32)
    keep = (values > 0) & (columns != itself)
    columns, values = columns[keep], values[keep]
    if len(values) > most:
        keep = values >= np.partition(values, len(values) - most)[len(values) - most]
        columns, values = columns[keep], values[keep]
    order = np.lexsort((columns, -values))[:most]
    return columns[order], values[order]


def matrix_of(table: NeighbourTable) -> sparse.csr_array:
    """Returns a table as a matrix [items, items] of float64, without the unused ends of rows."""
    n_items, width = table.neighbour.shape
    matrix = sparse.csr_array(
        (
            table.similarity.ravel().astype(np.float64),
            table.neighbour.ravel(),
            np.arange(0, n_items * width + 1, width),
        ),
        shape=(n_items, n_items),
    )
    matrix.eliminate_zeros()
    return matrix
