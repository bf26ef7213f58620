"""Cells (`service.artifact.graphs.cells`) of one catalogue on the device, and which of their items a filter allows."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np

from service.artifact.array_types import Array, FloatArray, IntArray
from service.artifact.graphs import graph_names as names
from service.artifact.graphs.cells import Cells, exact_width
from service.artifact.trie import Trie
from service.engine.decode.filters import Mask
from service.engine.decode.mask_arena import MaskArena
from service.engine.onnx_session import Values
from service.engine.placement import Placement
from service.signals.item_values import ItemValues

# Of what the signals of its best item add beyond the mean of a cell, the part that counts for the cell.
_BIAS_OF_BEST = 0.5
# Numbers of cells that are read, for each of which a small input is kept.
_KEPT_MAX = 1024


class CellArena:
    """Implements `service.engine.decode.filters.MaskPlaces`: node masks, and the allowed items of each cell.

    Attributes:
        values: The inputs of the graphs, by name; the place of a mask is its row.
    """

    def __init__(self, masks: MaskArena, trie: Trie, cells: Cells, placement: Placement) -> None:
        """`masks`: where the node masks lie."""
        self._masks, self._trie, self._cells, self._placement = masks, trie, cells, placement
        self._host: dict[str, Array] = {}
        self._own: Values = {}
        self._read: IntArray = np.zeros(0, np.int64)
        self.values: Values = {}

    @property
    def place_bytes(self) -> int:
        """Bytes of one place."""
        return self._masks.place_bytes + self._trie.n_items + 5 * len(self._cells) + 4

    def open(self, places: int) -> None:
        """Makes the places, all of them empty."""
        self._masks.open(places)
        n = len(self._cells)
        # Pages of the host's memory that no mask was written to take no room.
        self._host = {
            names.CELL_OPEN: np.zeros((places, n), np.bool_),
            names.CELL_FIRST: np.zeros((places, n + 1), np.int32),
            names.CELL_PLACE: np.zeros((places, self._trie.n_items), np.int8),
        }
        self._read = np.ones(places, np.int64)
        self._own = {name: self._placement.put(self._shaped(name)) for name in self._host}
        self.values = {**self._masks.values, **self._own}

    def write(self, masks: Sequence[Mask]) -> None:
        """Writes masks to their places."""
        self._masks.write(masks)
        first_leaf = self._cells.first_leaf
        for mask in masks:
            leaf = np.flatnonzero(mask.counts[-1])
            first = np.searchsorted(leaf, first_leaf).astype(np.int32)
            count = np.diff(first)
            self._host[names.CELL_OPEN][mask.place] = count > 0
            self._host[names.CELL_FIRST][mask.place] = first
            self._host[names.CELL_PLACE][mask.place, : len(leaf)] = leaf - np.repeat(first_leaf[:-1], count)
            self._read[mask.place] = cells_read(count, self._cells.rows)
        for name, value in self._own.items():
            self._placement.refresh(value, self._shaped(name))

    def read(self, masks: Sequence[Mask], rows: int) -> IntArray:
        """Returns [rows, 1] how many cells each row of a batch reads; 1 in the padding."""
        read = np.ones((rows, 1), np.int64)
        read[: len(masks), 0] = [self._read[mask.place] for mask in masks]
        return read

    def _shaped(self, name: str) -> Array:
        """An input in the shape that the graphs read, without a copy."""
        host = self._host[name]
        return host if name == names.CELL_OPEN else host.reshape(-1)


def cells_read(count: IntArray, rows: int) -> int:
    """Returns how many cells are read of those with these numbers [C] of allowed items.

    That is as many as fill the rows if their sizes are the mean, and a quarter more: the rows bound what they hold.
    """
    is_open = count > 0
    n, items = int(np.count_nonzero(is_open)), int(count.sum())
    return max(1, min(n, -(-5 * rows * n // (4 * max(1, items)))))


class CellTables:
    """The inputs of the graphs that follow from the cells. Safe for several threads.

    Attributes:
        cells: The cells.
        values: Inputs that all runs share, but those of the ranking (`bias`).
    """

    def __init__(self, cells: Cells, trie: Trie, placement: Placement) -> None:
        self.cells, self._trie, self._placement = cells, trie, placement
        first_leaf = cells.first_leaf
        self.values: Values = {
            names.QUERY_BASIS: placement.put(cells.query_basis),
            names.CELL_VECTOR: placement.put(cells.vectors),
            names.LEAF_VECTOR: placement.put(cells.leaf_vectors),
            names.CELL_SPREAD: placement.put(cells.spread[None]),
            names.CELL_LEAF: placement.put(first_leaf[:-1]),
            names.CELL_STRIDE: placement.put(np.array([len(first_leaf)], np.int64)),
            names.LEAF_STRIDE: placement.put(np.array([trie.n_items], np.int64)),
            names.CELL_SLOT: placement.put(np.arange(cells.rows + 1, dtype=np.int64)[None]),
            names.CELL_NOTHING: placement.put(np.zeros((1, cells.rows + 1), np.float32)),
        }
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[int, int], Values] = OrderedDict()

    def bias(self, bias: FloatArray) -> Values:
        """Returns the inputs that follow from what signals of items add [G, rows]."""
        by_leaf = bias.take(self._trie.leaf_item, axis=1)
        put = self._placement.put
        return {names.LEAF_BIAS: put(by_leaf.reshape(-1)), names.CELL_BIAS: put(cell_bias(self.cells, by_leaf))}

    def keep(self, read: int, joined: int) -> Values:
        """Returns the inputs for a run whose rows read up to so many cells; the same object for the same numbers.

        Args:
            read: The most cells.
            joined: Number of candidates that join the beam's.
        """
        most = min(1 << (read - 1).bit_length(), len(self.cells)) if self._placement.pad else read
        exact = min(exact_width(joined), self.cells.rows + 1)
        with self._lock:
            kept = self._kept.get((most, exact))
            if kept is None:
                cells, at = np.array([most], np.int64), np.arange(most, dtype=np.int64)[None]
                kept = self._kept[most, exact] = {
                    names.KEEP_CELLS: self._placement.host(cells),
                    names.KEEP_EXACT: self._placement.host(np.array([exact], np.int64)),
                    names.CELL_RANK: self._placement.put(at),
                }
                if len(self._kept) > _KEPT_MAX:
                    self._kept.popitem(last=False)
            return kept

    def excluded(self, mask: Mask, items: IntArray) -> tuple[IntArray, IntArray]:
        """Returns cell and place of those items that the mask allows; the others need not be left out."""
        items = items[(items >= 0) & (items < len(self._trie.item_leaf))]
        leaf = self._trie.item_leaf.take(items)
        leaf = leaf[leaf >= 0]
        return self._places(mask, leaf[mask.counts[-1].take(leaf) > 0])

    def signal_feeds(
        self, signals: Sequence[ItemValues], masks: Sequence[Mask], rows: int, size: int
    ) -> dict[str, Any]:
        """Returns cells and places [rows, size] of the items with signals, all of which the masks allow."""
        cell, place = np.zeros((2, rows, size), np.int64)
        for row, (one, mask) in enumerate(zip(signals, masks, strict=True)):
            cell[row, : len(one)], place[row, : len(one)] = self._places(mask, self._trie.item_leaf.take(one.items))
        return {names.SIGNAL_CELL: cell, names.SIGNAL_PLACE: place}

    def _places(self, mask: Mask, leaf: IntArray) -> tuple[IntArray, IntArray]:
        """Returns the cell of each leaf, and its place among the allowed leaves of its cell."""
        cell = self.cells.of_leaf(leaf)
        first = self.cells.first_leaf.take(cell)
        within = leaf - first
        if not len(leaf):
            return cell, within
        before = np.arange(int(within.max(initial=0)))
        allowed = mask.counts[-1].take(first[:, None] + before, mode="clip") > 0
        place: IntArray = np.count_nonzero(allowed & (before < within[:, None]), axis=1)
        return cell, place


def cell_bias(cells: Cells, bias: FloatArray) -> FloatArray:
    """Returns [G, C] what signals of items add to what cells promise, for `bias` [G, N] by leaf.

    It lies between the mean of a cell and its best item: a cell is read for its best.
    """
    first = cells.first_leaf[:-1]
    mean = np.add.reduceat(bias, first, axis=1) / np.diff(cells.first_leaf)
    best = np.maximum.reduceat(bias, first, axis=1)
    value: FloatArray = (mean + _BIAS_OF_BEST * (best - mean)).astype(np.float32)
    return value
