"""Token paths for new items: beside the item they are most like, where there is room."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from service.artifact.array_types import IntArray
from service.artifact.trie import Trie

Path = tuple[int, ...]

_LOOKED_AT = 4096  # nodes without room before an item is given up


class Places:
    """Hands out free paths of a trie, one item after the other. `code_sizes` [K] bound the tokens of every level: the
    decoder has no others."""

    def __init__(self, trie: Trie, code_sizes: Sequence[int]) -> None:
        self._trie, self._sizes = trie, tuple(code_sizes)
        self._taken: dict[Path, set[int]] = {}
        self._left = 0

    def beside(self, like: int) -> Path | None:
        """A path for a new item that shares as long a beginning as possible with the item `like`; None where there is
        no room. The path is taken afterwards."""
        path = self._path(like)
        self._left = _LOOKED_AT
        for level in range(self._trie.levels - 1, -1, -1):
            found = self._under(path[:level], path)
            if found is not None:
                for at, token in enumerate(found):
                    self._tokens(found[:at]).add(token)
                return found
        return None

    def _under(self, prefix: Path, like: Path) -> Path | None:
        """A free path below a node: by a token nobody has yet, else below one of its children."""
        level, tokens = len(prefix), self._tokens(prefix)
        self._left -= 1
        if len(tokens) < self._sizes[level]:
            free = next(token for token in range(self._sizes[level]) if token not in tokens)
            # Everything below a new node is free; the like-item's own tokens are the best guess for it.
            return (*prefix, free, *like[level + 1 :])
        if level + 1 == self._trie.levels:
            return None
        for token in sorted(tokens):
            if self._left <= 0:
                return None
            found = self._under((*prefix, token), like)
            if found is not None:
                return found
        return None

    def _tokens(self, prefix: Path) -> set[int]:
        """Tokens that follow a beginning, those given out included."""
        if prefix not in self._taken:
            self._taken[prefix] = set(self._trie.children(prefix).tolist())
        return self._taken[prefix]

    def _path(self, item: int) -> Path:
        nodes = self._trie.ancestors(self._trie.item_leaf[[item]])
        return tuple(int(token[at[0]]) for token, at in zip(self._trie.token, nodes, strict=True))


def with_paths(trie: Trie, paths: Sequence[Path], items: Sequence[int]) -> Trie:
    """The trie with more items. Sorts them all: seconds for a million, and numpy leaves the interpreter's lock."""
    if not paths:
        return trie
    codes = np.concatenate([trie.paths(), np.array(paths, np.int64)])
    indices: IntArray = np.concatenate([trie.leaf_item, np.array(items, np.int64)])
    return Trie.build(codes, indices)
