"""Finds token paths for new items: next to the exported item that they resemble most, if there is room."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from service.artifact.array_types import IntArray
from service.artifact.trie import Trie

Path = tuple[int, ...]

_NODES_MAX = 4096  # nodes searched for a free path before an item is given up


class FreePaths:
    """Hands out free paths of a trie, one item at a time.

    `code_sizes` [K] is the number of tokens of every level; the decoder has no others.
    """

    def __init__(self, trie: Trie, code_sizes: Sequence[int]) -> None:
        self._trie, self._sizes = trie, tuple(code_sizes)
        self._used_tokens: dict[Path, set[int]] = {}
        self._nodes_left = 0

    def beside(self, like: int) -> Path | None:
        """Takes a path for a new item that shares the longest possible prefix with an exported item.

        Args:
            like: Index of the exported item.

        Returns:
            The [K] tokens of the path, which is no longer free afterwards; None when there is no room.
        """
        like_path = self._path(like)
        self._nodes_left = _NODES_MAX
        for level in range(self._trie.levels - 1, -1, -1):
            path = self._under(like_path[:level], like_path)
            if path is not None:
                for depth, token in enumerate(path):
                    self._tokens(path[:depth]).add(token)
                return path
        return None

    def _under(self, prefix: Path, like: Path) -> Path | None:
        """Returns a free path below a node: by a token that is still free, otherwise below one of its children."""
        level, tokens = len(prefix), self._tokens(prefix)
        self._nodes_left -= 1
        if len(tokens) < self._sizes[level]:
            free = next(token for token in range(self._sizes[level]) if token not in tokens)
            # Everything below a new node is free, and the tokens of the similar item are the best guess there.
            return (*prefix, free, *like[level + 1 :])
        if level + 1 == self._trie.levels:
            return None
        for token in sorted(tokens):
            if self._nodes_left <= 0:
                return None
            path = self._under((*prefix, token), like)
            if path is not None:
                return path
        return None

    def _tokens(self, prefix: Path) -> set[int]:
        """Returns the used tokens after a prefix, those handed out included."""
        if prefix not in self._used_tokens:
            self._used_tokens[prefix] = set(self._trie.children(prefix).tolist())
        return self._used_tokens[prefix]

    def _path(self, item: int) -> Path:
        nodes = self._trie.ancestors(self._trie.item_leaf[[item]])
        return tuple(int(token[at[0]]) for token, at in zip(self._trie.token, nodes, strict=True))


def with_paths(trie: Trie, paths: Sequence[Path], items: Sequence[int]) -> Trie:
    """Returns the trie with more items, sorting all of them again.

    That takes seconds for a million items, during which numpy releases the interpreter's lock.

    Args:
        trie: The trie to extend.
        paths: [m] token paths, each of [K] tokens.
        items: [m] catalogue indices of the items with these paths.
    """
    if not paths:
        return trie
    codes = np.concatenate([trie.paths(), np.array(paths, np.int64)])
    indices: IntArray = np.concatenate([trie.leaf_item, np.array(items, np.int64)])
    return Trie.build(codes, indices)
