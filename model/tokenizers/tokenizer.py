"""The interface of item tokenizers: every item is a path of K tokens, and no two items share a path.

There are three kinds: `atomic` (the item itself, K = 1), `hierarchical` (category path → brand → product) and
`semantic` (residual k-means over item vectors, `model/tokenizers/semantic.py`). A fitted tokenizer is saved as JSON and
arrays beside the weights, because codes that were fitted again between training and serving would silently scramble
every ranking.
"""

from __future__ import annotations

import copy
import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from model.tokenizers.item_content import ItemContent
from service.artifact.array_types import IntArray
from service.common.atomic_files import replacing, write_aside

MAX_BRANCHING = 256


def unique_last_tokens(prefix: IntArray, size: int = MAX_BRANCHING) -> IntArray:
    """Returns last tokens that make paths unique.

    Args:
        prefix: [items, levels] tokens that items may share.
        size: Number of tokens of a level.

    Returns:
        [items, 1] tokens, or more columns if more than `size` items share a prefix.
    """
    _, group = np.unique(prefix, axis=0, return_inverse=True)
    group = group.reshape(-1)
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(group.max() + 1))
    rank = np.empty(len(group), np.int64)
    rank[order] = np.arange(len(group)) - starts[group[order]]
    digits = [rank % size]
    rest = rank // size
    while rest.any():
        digits.append(rest % size)
        rest = rest // size
    return np.stack(digits[::-1], axis=1)


class Tokenizer(ABC):
    """A fitted tokenizer. Paths are unique, and stay unique as `encode_new` adds to them.

    Args:
        codes: [items, K] int64, paths of the catalogue in index order.
        code_sizes: [K] number of tokens of each level.

    Raises:
        ValueError: Two items share a path, or a token is outside its level.
    """

    kind: ClassVar[str]

    def __init__(self, codes: IntArray, code_sizes: Sequence[int]) -> None:
        self.codes = np.ascontiguousarray(codes, dtype=np.int64)
        self.code_sizes = tuple(int(size) for size in code_sizes)
        if len(np.unique(self.codes, axis=0)) != len(self.codes):
            raise ValueError("two items share a token path")
        if self.codes.min() < 0 or (self.codes.max(axis=0) >= np.array(self.code_sizes)).any():
            raise ValueError("a token lies outside its level's code size")
        self._taken = {tuple(row) for row in self.codes.tolist()}

    @property
    def levels(self) -> int:
        """K, the number of tokens of a path."""
        return len(self.code_sizes)

    @abstractmethod
    def prefix(self, content: ItemContent) -> list[list[int]]:
        """Returns candidate tokens of an unseen item, best first, for every level but the last."""

    def free_levels(self, first: int) -> list[list[int]]:
        """Returns all tokens of the levels from `first` to the last but one, the digits of a long uniqueness token."""
        return [list(range(size)) for size in self.code_sizes[first:-1]]

    def encode_new(self, content: ItemContent) -> tuple[int, ...]:
        """Takes a free path for an unseen item, without fitting the codes again.

        Args:
            content: What is known of the item; similar items get nearby paths.

        Returns:
            The path, K tokens, which no later call returns.

        Raises:
            ValueError: No path is free near the item's content.
        """
        for prefix in _combinations(self.prefix(content)):
            for last in range(self.code_sizes[-1]):
                path = (*prefix, last)
                if path not in self._taken:
                    self._taken.add(path)
                    return path
        raise ValueError("no free token path is left near this item's content; refit the tokenizer and train again")

    def extended(self, contents: Sequence[ItemContent]) -> tuple[Self, int]:
        """Returns the tokenizer with paths for more items, behind those of its own; nothing is fitted again.

        An item whose nearby paths are all taken gets one below the prefix that the fewest items share, so it is listed
        by its dense score rather than by its path.

        Args:
            contents: What is known of the new items, in index order.

        Returns:
            The tokenizer, and how many items got a path that says nothing of them.

        Raises:
            ValueError: No path is free at all.
        """
        other = copy.deepcopy(self)
        paths, far = [], 0
        for content in contents:
            try:
                path = other.encode_new(content)
            except ValueError:
                path, far = other.encode_anywhere(), far + 1
            paths.append(path)
        new = np.array(paths, np.int64).reshape(len(paths), self.levels)
        other.codes = np.concatenate([self.codes, new])
        return other, far

    def encode_anywhere(self) -> tuple[int, ...]:
        """Takes a free path below the prefix that the fewest items share, whatever the item.

        Raises:
            ValueError: No path is free at all.
        """
        shared = Counter(path[:-1] for path in self._taken)
        prefix = min(shared, key=lambda used: (shared[used], used))
        free = next((last for last in range(self.code_sizes[-1]) if (*prefix, last) not in self._taken), None)
        if free is None:
            raise ValueError(
                f"all paths of the {self.kind} tokenizer are taken; train anew, so that it is fitted again"
            )
        path = (*prefix, free)
        self._taken.add(path)
        return path

    def save(self, folder: Path) -> None:
        """Writes `tokenizer.json` and `tokenizer.npz` into a folder."""
        meta = {"kind": self.kind, "code_sizes": self.code_sizes, **self._meta()}
        write_aside(folder / "tokenizer.json", json.dumps(meta, ensure_ascii=False, indent=1).encode())
        with replacing(folder / "tokenizer.npz") as aside, aside.open("wb") as file:
            np.savez(file, allow_pickle=False, codes=self.codes, **self._arrays())

    def _meta(self) -> dict[str, Any]:
        return {}

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {}


def _combinations(levels: list[list[int]]) -> list[tuple[int, ...]]:
    """All prefixes; the last level varies first, so that siblings of the nearest cell are tried early."""
    paths: list[tuple[int, ...]] = [()]
    for choices in levels:
        paths = [(*path, choice) for path in paths for choice in choices]
    return paths
