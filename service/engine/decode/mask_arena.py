"""The masks of filters on the device: one place for each, in arrays that all runs share.

A new mask is written to its own place and nothing else is copied, whatever the number of masks. The arrays stay where
they are, so runs that read other places go on meanwhile, and nothing is bound anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from service.artifact import graph_names as names
from service.artifact.array_types import BoolArray
from service.artifact.graph_names import level_input
from service.artifact.trie import Trie
from service.engine.decode.filters import Mask
from service.engine.onnx_session import Values
from service.engine.placement import Placement


class MaskArena:
    """Implements `service.engine.decode.filters.MaskPlaces` on a device.

    Attributes:
        values: The inputs of the graphs, by name; the place of a mask is its row.
    """

    def __init__(self, trie: Trie, tables: Mapping[int, int], rows: int, placement: Placement) -> None:
        """Describes the places; `open` makes them.

        Args:
            trie: The catalogue's trie.
            tables: Number of tokens of each level at which the decoder looks children up by token.
            rows: Rows of the item table that are scored with every list.
            placement: Where the graphs run.
        """
        self._trie, self._tables, self._rows, self._placement = trie, tables, rows, placement
        self._host: dict[str, BoolArray] = {}
        self.values: Values = {}

    @property
    def place_bytes(self) -> int:
        """Bytes of one place."""
        return sum(self._sizes().values())

    def open(self, places: int) -> None:
        """Makes the places, all of them empty."""
        # Pages of the host's memory that no mask was written to take no room.
        self._host = {name: np.zeros((places, size), np.bool_) for name, size in self._sizes().items()}
        self.values = {name: self._placement.put(self._shaped(name)) for name in self._host}

    def write(self, masks: Sequence[Mask]) -> None:
        """Writes masks to their places."""
        for mask in masks:
            for level in range(self._trie.levels):
                ok = mask.node_ok(level)
                self._host[level_input(names.NODE_OK, level)][mask.place] = ok
                if level in self._tables:
                    table = self._trie.rows(level, self._tables[level], ok)
                    self._host[level_input(names.ROW_OK, level)][mask.place] = table.ravel()
            if self._rows:
                self._host[names.ITEM_OK][mask.place] = mask.item_ok
        for name, value in self.values.items():
            self._placement.refresh(value, self._shaped(name))

    def _sizes(self) -> dict[str, int]:
        """Bytes of one place in each input."""
        sizes = {level_input(names.NODE_OK, level): nodes for level, nodes in enumerate(self._trie.n_nodes)}
        for level, size in self._tables.items():
            sizes[level_input(names.ROW_OK, level)] = (len(self._trie.first_child[level]) - 1) * size
        return sizes | ({names.ITEM_OK: self._rows} if self._rows else {})

    def _shaped(self, name: str) -> BoolArray:
        """An input in the shape that the graphs read, without a copy."""
        host = self._host[name]
        if name in (level_input(names.NODE_OK, 0), names.ITEM_OK):
            return host
        for level, size in self._tables.items():
            if name == level_input(names.ROW_OK, level):
                return host.reshape(-1, size)
        return host.reshape(-1)
