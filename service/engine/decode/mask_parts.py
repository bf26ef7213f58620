"""What the graphs read of a mask, level by level: one input of theirs each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from service.artifact.array_types import Array
from service.artifact.graphs import graph_names as names
from service.artifact.graphs.graph_names import level_input
from service.artifact.trie import Trie
from service.engine.decode.filters import Mask


@dataclass(frozen=True, slots=True)
class MaskPart:
    """One input of the graphs that holds a part of every mask.

    Attributes:
        name: The input.
        shape: Shape of one mask's part.
        dtype: Its type; 0 allows nothing.
        of: Returns a mask's part, in any type of the same size.
        joined: Whether the rows of all masks follow each other along one dimension; else each mask has a row.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    of: Callable[[Mask], Array]
    joined: bool = True

    @property
    def nbytes(self) -> int:
        """Bytes of one mask's part."""
        return int(np.prod(self.shape)) * self.dtype.itemsize


def mask_parts(trie: Trie, tables: Mapping[int, int], rows: int, *, packed: bool) -> list[MaskPart]:
    """Returns the parts of a mask over a catalogue.

    Args:
        trie: The catalogue's trie.
        tables: Number of tokens of each level at which the decoder looks children up by token.
        rows: Rows of the item table that are scored with every list.
        packed: Whether the graphs read the other levels in bits, by parent; graphs of before read a byte for each node.
    """
    parts = [_nodes(trie, 0, joined=False)]
    for level in range(1, trie.levels):
        if level in tables:
            parts.append(_by_token(trie, level, tables[level], np.dtype(np.int8 if packed else np.bool_)))
        else:
            parts.append(_in_bits(trie, level) if packed else _nodes(trie, level, joined=True))
    if rows:
        parts.append(MaskPart(names.ITEM_OK, (rows,), np.dtype(np.bool_), lambda mask: mask.item_ok, joined=False))
    return parts


def _nodes(trie: Trie, level: int, *, joined: bool) -> MaskPart:
    name, shape = level_input(names.NODE_OK, level), (trie.n_nodes[level],)
    return MaskPart(name, shape, np.dtype(np.bool_), lambda mask: mask.node_ok(level), joined)


def _by_token(trie: Trie, level: int, size: int, dtype: np.dtype[Any]) -> MaskPart:
    shape = (trie.n_nodes[level - 1], size)
    name = level_input(names.ROW_OK, level)
    return MaskPart(name, shape, dtype, lambda mask: trie.rows(level, size, mask.node_ok(level)))


def _in_bits(trie: Trie, level: int) -> MaskPart:
    shape = (trie.n_nodes[level - 1], trie.row_bytes(level))
    name = level_input(names.CHILD_OK, level)
    return MaskPart(name, shape, np.dtype(np.uint8), lambda mask: trie.row_bits(level, mask.node_ok(level)))
