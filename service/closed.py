"""Nodes of the trie that one request closes: those whose every allowed leaf is an excluded item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from export.trie import IntArray, Trie
from service.filters import Mask

_NO_ROWS = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class Closed:
    """Closed nodes of one level, of all rows of a batch in order: their row, parent, and place among its children."""

    row: IntArray
    parent: IntArray
    slot: IntArray

    def padded(self, values: IntArray, rows: int, size: int, filler: int) -> IntArray:
        """[rows, 1, size] `values` by row, `filler` behind them."""
        out = np.full((rows, 1, size), filler, np.int64)
        if len(self.row):
            start = np.searchsorted(self.row, np.arange(rows))
            out[self.row, 0, np.arange(len(self.row)) - start[self.row]] = values
        return out

    @property
    def most(self) -> int:
        """Of one row."""
        return int(np.bincount(self.row).max()) if len(self.row) else 0


def closed_nodes(trie: Trie, masks: Sequence[Mask], excluded: Sequence[IntArray]) -> list[Closed]:
    """For every level, `masks` and `excluded` (item indices; unknown ones count for nothing) by row of the batch.

    Few: at most one a level for each excluded item. Nodes under a closed one are left out, as no beam reaches them.
    """
    lengths = [len(items) for items in excluded]
    if not any(lengths):
        return [Closed(_NO_ROWS, _NO_ROWS, _NO_ROWS)] * trie.levels
    items = np.concatenate(excluded)
    row = np.repeat(np.arange(len(excluded)), lengths)
    known = (items >= 0) & (items < len(trie.item_leaf))
    leaf = trie.item_leaf[np.where(known, items, 0)]
    key = np.unique((row * trie.n_items + leaf)[known & (leaf >= 0)])
    row, node = np.divmod(key, trie.n_items)
    hidden = (_counts(masks, -1, row, node) > 0).astype(np.int64)
    row, node, hidden = row[hidden > 0], node[hidden > 0], hidden[hidden > 0]
    found = []
    for level in range(trie.levels - 1, -1, -1):
        parent = trie.parent[level][node]
        closed = hidden == _counts(masks, level, row, node)
        found.append((closed, row, node, parent))
        # Sorted by row and node, so the children of one parent are neighbours.
        starts = np.flatnonzero(np.diff(row, prepend=-1) | np.diff(parent, prepend=-1))
        hidden = np.add.reduceat(hidden, starts) if len(starts) else hidden
        row, node = row[starts], parent[starts]
    return _without_closed_parents(trie, found[::-1])


def _without_closed_parents(trie: Trie, found: Sequence[tuple[IntArray, ...]]) -> list[Closed]:
    levels = []
    above = np.zeros(0, np.int64)
    for level, (closed, row, node, parent) in enumerate(found):
        n_above = len(trie.first_child[level]) - 1
        reached = closed & ~np.isin(row * n_above + parent, above) if len(above) else closed.astype(bool)
        first = trie.first_child[level][parent[reached]]
        levels.append(Closed(row[reached], parent[reached], node[reached] - first))
        above = row[closed] * trie.n_nodes[level] + node[closed]
    return levels


def _counts(masks: Sequence[Mask], level: int, row: IntArray, node: IntArray) -> IntArray:
    """Allowed leaves under each node, by the mask of its row."""
    if all(mask is masks[0] for mask in masks):
        return masks[0].counts[level][node].astype(np.int64)
    counts = np.zeros(len(node), np.int64)
    for mask in set(masks):
        here = np.array([other is mask for other in masks])[row]
        counts[here] = mask.counts[level][node[here]]
    return counts
