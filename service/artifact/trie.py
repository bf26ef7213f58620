"""The catalogue as a trie of item tokens, in CSR form.

Items are sorted by their token paths, so the children of a node are contiguous, and so are the leaves under any node:
one cumulative sum gives the masks of all nodes. Nodes are numbered by level, breadth first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from service.artifact.array_types import BoolArray, IntArray
from service.artifact.arrays import map_arrays, save_arrays

# Allowed leaves under nodes: int32 where there can be many, uint8 for the leaves themselves.
Counts = npt.NDArray[np.integer]


@dataclass(frozen=True, slots=True)
class _BitLayout:
    """Where the children of one level are in `Trie.row_bits`.

    Attributes:
        bit: [n_{l+1}] the bit of each child in its byte.
        start: [m] the first child of each byte in use.
        byte: [m] the byte, or all of them.
    """

    bit: npt.NDArray[np.uint8]
    start: IntArray
    byte: IntArray | slice


@dataclass(frozen=True)
class Trie:
    """K levels under one root; level 0 is the root, level K the leaves.

    first_child[l] [n_l + 1]   children of node i of level l: first_child[l][i] … first_child[l][i + 1] of level l + 1
    token[l]       [n_{l+1}]   token on the edge into each node of level l + 1
    parent[l]      [n_{l+1}]   its parent, a node of level l
    first_leaf[l]  [n_l + 1]   leaves under node i of level l, l = 0 … K − 1
    leaf_item      [N]         item of each leaf
    item_leaf      [M ≥ N]     its inverse; −1 for an index that is no leaf's item
    """

    first_child: tuple[IntArray, ...]
    token: tuple[IntArray, ...]
    parent: tuple[IntArray, ...]
    first_leaf: tuple[IntArray, ...]
    leaf_item: IntArray
    item_leaf: IntArray

    @property
    def levels(self) -> int:
        """K, the number of tokens of an item."""
        return len(self.token)

    @property
    def n_items(self) -> int:
        """N, the number of leaves."""
        return len(self.leaf_item)

    @property
    def n_nodes(self) -> tuple[int, ...]:
        """Number of nodes at levels 1 … K."""
        return tuple(len(t) for t in self.token)

    @cached_property
    def branching(self) -> tuple[int, ...]:
        """Largest number of children at levels 0 … K − 1."""
        return tuple(int(np.diff(f).max(initial=1)) for f in self.first_child)

    @classmethod
    def build(cls, codes: IntArray, items: IntArray | None = None) -> Trie:
        """Builds the trie.

        Args:
            codes: [N, K] token paths.
            items: [N] items of the paths; None: 0 … N − 1.

        Raises:
            ValueError: Two items share a path, a token is negative, or there is no item.
        """
        if codes.ndim != 2 or codes.size == 0:
            raise ValueError(f"a trie needs at least one item and one level, got codes of shape {codes.shape}")
        if codes.min() < 0:
            raise ValueError("tokens must not be negative")
        n, levels = codes.shape
        order = np.lexsort(codes.T[::-1]).astype(np.int64)
        path = codes[order]
        is_new = np.zeros(n, np.bool_)
        is_new[0] = True
        first_leaf = [np.array([0, n], np.int64)]
        first_child, token, parent = [], [], []
        for level in range(levels):
            is_new[1:] |= path[1:, level] != path[:-1, level]
            starts = np.flatnonzero(is_new)
            token.append(np.ascontiguousarray(path[starts, level], dtype=np.int64))
            above = first_leaf[-1]
            parent.append(np.searchsorted(above, starts, side="right") - 1)
            first_child.append(np.searchsorted(starts, above).astype(np.int64))
            first_leaf.append(np.append(starts, n).astype(np.int64))
        if len(token[-1]) != n:
            raise ValueError(f"{n - len(token[-1])} items share another item's token path")
        leaf_item = order if items is None else items[order]
        item_leaf = np.full(int(leaf_item.max()) + 1, -1, np.int64)
        item_leaf[leaf_item] = np.arange(n)
        return cls(tuple(first_child), tuple(token), tuple(parent), tuple(first_leaf[:-1]), leaf_item, item_leaf)

    def node_counts(self, allowed: BoolArray) -> list[Counts]:
        """Returns the number of allowed leaves under every node of levels 1 … K, for `allowed` [≥ M] by item."""
        leaf_ok = allowed.take(self.leaf_item)
        total = np.zeros(self.n_items + 1, np.int32)
        np.cumsum(leaf_ok, dtype=np.int32, out=total[1:])
        inner: list[Counts] = [np.diff(total.take(first)) for first in self.first_leaf[1:]]
        return [*inner, leaf_ok.view(np.uint8)]

    def paths(self) -> IntArray:
        """Returns [N, K] token paths by leaf, in sorted order."""
        nodes = self.ancestors(np.arange(self.n_items))
        return np.stack([token[at] for token, at in zip(self.token, nodes, strict=True)], axis=1)

    def children(self, prefix: Sequence[int]) -> IntArray:
        """Returns the tokens that may follow a prefix, ascending; none if no item begins with it."""
        low, high = 0, int(self.first_child[0][1])
        for level, token in enumerate(prefix):
            node = low + int(np.searchsorted(self.token[level][low:high], token))
            if node == high or self.token[level][node] != token:
                return np.zeros(0, np.int64)
            low, high = self.first_child[level + 1][node : node + 2].tolist()
        return self.token[len(prefix)][low:high]

    def ancestors(self, leaf: IntArray) -> list[IntArray]:
        """Returns the nodes above each leaf at levels 1 … K; the last is the leaf itself."""
        nodes = [leaf]
        for level in range(self.levels - 1, 0, -1):
            nodes.append(self.parent[level][nodes[-1]])
        return nodes[::-1]

    def rows(self, level: int, size: int, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Returns [n_level, size] `values` [n_{level+1}] of the children by parent and token; zero without a child."""
        table = np.zeros((len(self.first_child[level]) - 1, size), values.dtype)
        table[self.parent[level], self.token[level]] = values
        return table

    def row_tokens(self, level: int, places: int | None = None) -> npt.NDArray[np.int32]:
        """Returns [n_level, places] the children's tokens by parent and place, padded with zeros.

        Args:
            level: Level of the parents.
            places: As many as a node's children take; by default as many as the most children of one.
        """
        table = np.zeros((len(self.first_child[level]) - 1, places or self.branching[level]), np.int32)
        table[self.parent[level], self._place(level)] = self.token[level]
        return table

    def row_bits(self, level: int, values: BoolArray) -> npt.NDArray[np.uint8]:
        """Returns [n_level, ⌈branching / 8⌉] `values` [n_{level+1}] of the children in bits, by parent and place.

        The first child has the lowest bit of the first byte. There are zeros where there is no child.
        """
        rows = np.zeros((len(self.first_child[level]) - 1, self.row_bytes(level)), np.uint8)
        if not values.any():
            return rows
        layout = self._bit_layout(level)
        rows.reshape(-1)[layout.byte] = np.add.reduceat(values * layout.bit, layout.start, dtype=np.uint8)
        return rows

    def row_bytes(self, level: int) -> int:
        """Returns the bytes of a row of `row_bits`."""
        return -(-self.branching[level] // 8)

    def _place(self, level: int) -> IntArray:
        """[n_{level+1}] place of each node among its parent's children."""
        place: IntArray = np.arange(len(self.token[level])) - self.first_child[level].take(self.parent[level])
        return place

    def _bit_layout(self, level: int) -> _BitLayout:
        """Computed once for a level: every filter needs it."""
        if level not in self._bit_layouts:
            place = self._place(level)
            start: IntArray = self.first_child[level][:-1]
            byte: IntArray | slice = slice(None)
            if self.row_bytes(level) > 1:
                start = np.flatnonzero(place % 8 == 0)
                byte = self.parent[level].take(start) * self.row_bytes(level) + place.take(start) // 8
            bit = np.left_shift(np.uint8(1), (place % 8).astype(np.uint8))
            self._bit_layouts[level] = _BitLayout(bit, start, byte)
        return self._bit_layouts[level]

    @cached_property
    def _bit_layouts(self) -> dict[int, _BitLayout]:
        return {}

    def save(self, path: Path) -> None:
        """Writes the trie."""
        levels = {
            f"{name}_{level}": getattr(self, name)[level]
            for level in range(self.levels)
            for name in ("first_child", "token", "parent", "first_leaf")
        }
        save_arrays(path, leaf_item=self.leaf_item, item_leaf=self.item_leaf, **levels)

    @classmethod
    def load(cls, path: Path) -> Trie:
        """Maps a file that `save` wrote. Raises ValueError or KeyError for anything else."""
        arrays = map_arrays(path)
        levels = sum(name.startswith("token_") for name in arrays)

        def each(name: str) -> tuple[IntArray, ...]:
            return tuple(arrays[f"{name}_{level}"] for level in range(levels))

        trie = cls(
            each("first_child"), each("token"), each("parent"), each("first_leaf"),
            arrays["leaf_item"], arrays["item_leaf"],
        )  # fmt: skip
        if not levels or any(array.dtype != np.int64 for array in arrays.values()):
            raise ValueError(f"{path.name} does not hold a trie")
        return trie
