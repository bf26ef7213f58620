"""The trie nodes that a request closes: those whose every allowed leaf is an excluded item.

They are computed before every decoder run, for all rows at once and with few calls: at batch 1 each call costs more
than what it does to a few hundred numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from service.artifact.array_types import BoolArray, IntArray
from service.artifact.trie import Counts, Trie
from service.engine.decode.filters import Mask

_NONE = np.zeros(0, np.int64)
_NO_NODE = -2


@dataclass(frozen=True, slots=True)
class ClosedNodes:
    """The closed nodes of one level, for all rows of a batch in order.

    Attributes:
        row: [n] row of the batch.
        parent: [n] parent node.
        slot: [n] place among the parent's children.
    """

    row: IntArray
    parent: IntArray
    slot: IntArray

    def most(self, rows: int) -> int:
        """Returns the largest number of closed nodes of one row."""
        if rows == 1 or len(self.row) < 2:
            return len(self.row)
        return int(np.bincount(self.row).max())

    def padded(self, rows: int, size: int) -> tuple[IntArray, IntArray]:
        """Returns parents and places [rows, 1, size] by row; the padding is −2, which is no node, and 0."""
        if rows == 1 and len(self.row) == size:
            return self.parent.reshape(1, 1, -1), self.slot.reshape(1, 1, -1)
        parent, slot = np.full((rows, 1, size), _NO_NODE, np.int64), np.zeros((rows, 1, size), np.int64)
        if len(self.row):
            start = self.row.searchsorted(np.arange(rows))
            column = np.arange(len(self.row)) - start.take(self.row)
            parent[self.row, 0, column] = self.parent
            slot[self.row, 0, column] = self.slot
        return parent, slot


NOTHING_CLOSED = ClosedNodes(_NONE, _NONE, _NONE)


def closed_nodes(trie: Trie, masks: Sequence[Mask], excluded: Sequence[IntArray]) -> list[ClosedNodes]:
    """Finds the nodes that each row of a batch closes.

    They are few: at most one a level for each excluded item. Nodes under a closed one are left out, since no beam
    reaches them.

    Args:
        trie: The catalogue.
        masks: The filter of each row.
        excluded: [m] item indices to exclude, for each row; unknown ones are ignored.

    Returns:
        The closed nodes of levels 1 … K.
    """
    row, node = _excluded_leaves(trie, masks, excluded)
    hidden: Counts = np.ones(len(node), np.int64)  # excluded leaves under each node
    closed: list[ClosedNodes] = []  # of the deepest level first
    for level in range(trie.levels - 1, 0, -1):
        if not len(node):
            break
        parent = trie.parent[level].take(node)
        # Sorted by row and node, so the children of one parent are neighbours.
        first = _changes(parent)
        if len(masks) > 1:
            first |= _changes(row)
        starts = first.nonzero()[0]
        row_above, above, hidden = row.take(starts), parent.take(starts), np.add.reduceat(hidden, starts)
        whole = hidden == _counts(masks, level - 1, row_above, above)
        if not whole.any():
            closed.append(_placed(trie, level, row, node, parent))
            row = node = _NONE
        else:
            reachable = ~whole.take(first.cumsum() - 1)
            closed.append(_placed(trie, level, row[reachable], node[reachable], parent[reachable]))
            # Only what is above closed nodes alone can be closed.
            row, node, hidden = row_above[whole], above[whole], hidden[whole]
    if len(node):
        closed.append(_placed(trie, 0, row, node, np.zeros(len(node), np.int64)))
    return [*[NOTHING_CLOSED] * (trie.levels - len(closed)), *reversed(closed)]


def _placed(trie: Trie, level: int, row: IntArray, node: IntArray, parent: IntArray) -> ClosedNodes:
    """The closed nodes below a level, with their place among the children of their parents."""
    return ClosedNodes(row, parent, node - trie.first_child[level].take(parent))


def _changes(values: IntArray) -> BoolArray:
    """Marks where a new value begins."""
    first = np.empty(len(values), np.bool_)
    first[:1] = True
    np.not_equal(values[1:], values[:-1], out=first[1:])
    return first


def _excluded_leaves(trie: Trie, masks: Sequence[Mask], excluded: Sequence[IntArray]) -> tuple[IntArray, IntArray]:
    """Row and leaf of every excluded item that could be listed, sorted, without repeats."""
    items = excluded[0] if len(excluded) == 1 else np.concatenate(excluded)
    if not len(items):
        return _NONE, _NONE
    leaf = trie.item_leaf.take(items, mode="clip")
    # As unsigned numbers, indices below 0 lie beyond the last.
    known = (items.astype(np.uint64) < len(trie.item_leaf)) & (leaf >= 0)
    key = leaf
    if len(excluded) > 1:
        key = leaf + np.repeat(np.arange(len(excluded)) * trie.n_items, [len(part) for part in excluded])
    if not known.all():
        key = key[known]
    key.sort()
    key = key[_changes(key)]
    row, leaf = (np.zeros(len(key), np.int64), key) if len(excluded) == 1 else np.divmod(key, trie.n_items)
    allowed = _counts(masks, -1, row, leaf) > 0
    return (row, leaf) if allowed.all() else (row[allowed], leaf[allowed])


def _counts(masks: Sequence[Mask], level: int, row: IntArray, node: IntArray) -> Counts:
    """Allowed leaves under each node, by the mask of its row."""
    first = masks[0]
    if all(mask is first for mask in masks):
        return first.counts[level].take(node)
    counts = np.zeros(len(node), np.int64)
    for mask in set(masks):
        has_mask = np.array([other is mask for other in masks])[row]
        counts[has_mask] = mask.counts[level][node[has_mask]]
    return counts
