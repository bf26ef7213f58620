"""Closed nodes in the plain form: the reference for `service.engine.decode.closed_nodes`, also used by a peer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from service.artifact.array_types import IntArray
from service.artifact.trie import Counts, Trie


def closed_nodes(trie: Trie, counts: Sequence[Counts], excluded: IntArray) -> list[IntArray]:
    """Returns the nodes of levels 1 … K all of whose allowed leaves are excluded items.

    There is at most one a level for each excluded item.

    Args:
        trie: The trie.
        counts: `Trie.node_counts` of the filter in force.
        excluded: Items; indices that have no leaf do not count.
    """
    leaves = np.unique(trie.item_leaf[excluded[(excluded >= 0) & (excluded < len(trie.item_leaf))]])
    leaves = leaves[leaves >= 0]
    leaves = leaves[counts[-1][leaves] > 0]
    closed = []
    for level, nodes in enumerate(trie.ancestors(leaves)):
        node, hidden = np.unique(nodes, return_counts=True)
        closed.append(node[hidden == counts[level][node]])
    return closed
