"""Item tokenizers: every item is a path of K tokens, and every path is one item.

Three kinds behind one interface: `atomic` (the item itself, K = 1), `hierarchical` (category path → brand → product)
and `semantic` (residual k-means over item vectors, `model/semantic.py`). A fitted tokenizer is data: it is saved as
JSON and arrays beside the weights, since codes fitted anew between training and serving would silently scramble
every ranking.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]

MAX_BRANCHING = 256


@dataclass(frozen=True, slots=True)
class ItemContent:
    """What is known of an item besides who used it. Order within `category` is the path's, top level first."""

    category: tuple[str, ...] = ()
    brand: str | None = None
    attributes: tuple[str, ...] = ()
    text: tuple[float, ...] = ()  # the sentence vector of its text, where texts are used

    def features(self) -> list[str]:
        """Names of the item's content features; a deeper category carries the path that leads to it."""
        path = ["/".join(self.category[: depth + 1]) for depth in range(len(self.category))]
        names = {f"category:{name}" for name in (*self.category, *path)}
        names |= {f"attribute:{name}" for name in self.attributes}
        if self.brand is not None:
            names.add(f"brand:{self.brand}")
        return sorted(names)


def unique_last_tokens(prefix: IntArray, size: int = MAX_BRANCHING) -> IntArray:
    """Tokens that make rows of `prefix` [N, P] unique: [N, 1], or [N, 2] and more where a group outgrows `size`."""
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
    """A fitted tokenizer. `codes` [N, K] int64 are the paths of the catalogue in index order.

    Guarantee: rows of `codes` are unique, and stay unique as `encode_new` adds to them.
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
        return len(self.code_sizes)

    @abstractmethod
    def prefix(self, content: ItemContent) -> list[list[int]]:
        """For every level but the last, the candidate tokens of an unseen item, best first."""

    def free_levels(self, first: int) -> list[list[int]]:
        """Every token of the levels from `first` to the last but one: digits of a long uniqueness token."""
        return [list(range(size)) for size in self.code_sizes[first:-1]]

    def encode_new(self, content: ItemContent) -> tuple[int, ...]:
        """A free path for an unseen item, without refitting; it is taken afterwards.

        Raises ValueError when every path the network knows is in use near the item's content.
        """
        for prefix in _combinations(self.prefix(content)):
            for last in range(self.code_sizes[-1]):
                path = (*prefix, last)
                if path not in self._taken:
                    self._taken.add(path)
                    return path
        raise ValueError("no free token path is left near this item's content; refit the tokenizer and train again")

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` and `tokenizer.npz` into `folder`."""
        meta = {"kind": self.kind, "code_sizes": self.code_sizes, **self._meta()}
        (folder / "tokenizer.json").write_text(json.dumps(meta, ensure_ascii=False, indent=1), "utf-8")
        np.savez(folder / "tokenizer.npz", allow_pickle=False, codes=self.codes, **self._arrays())

    def _meta(self) -> dict[str, Any]:
        return {}

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {}


def _combinations(levels: list[list[int]]) -> list[tuple[int, ...]]:
    """Prefixes in the order of their last choice first, so that the nearest cell's siblings are tried early."""
    paths: list[tuple[int, ...]] = [()]
    for choices in levels:
        paths = [(*path, choice) for path in paths for choice in choices]
    return paths


class AtomicTokenizer(Tokenizer):
    """One token an item. Spare tokens are kept for items that arrive after training."""

    kind = "atomic"

    @classmethod
    def fit(cls, n_items: int, *, spare: int = 0) -> AtomicTokenizer:
        return cls(np.arange(n_items, dtype=np.int64)[:, None], [n_items + spare])

    def prefix(self, content: ItemContent) -> list[list[int]]:  # noqa: ARG002
        return []


class HierarchicalTokenizer(Tokenizer):
    """Category path → brand → product. Token 0 of a level stands for a missing or unseen name."""

    kind = "hierarchical"

    def __init__(
        self, codes: IntArray, code_sizes: Sequence[int], names: Sequence[Mapping[str, int]], depth: int
    ) -> None:
        """`names[l]` numbers the names of level l: `depth` category levels, then the brand if there is one."""
        super().__init__(codes, code_sizes)
        self.names = [dict(level) for level in names]
        self.depth = depth

    @classmethod
    def fit(cls, contents: Sequence[ItemContent], *, max_depth: int = 3) -> HierarchicalTokenizer:
        """Names are numbered in sorted order, level by level."""
        depth = min(max_depth, max((len(c.category) for c in contents), default=0))
        columns = [[_at(c.category, level) for c in contents] for level in range(depth)]
        if any(c.brand is not None for c in contents):
            columns.append([c.brand for c in contents])
        names = [
            {name: i + 1 for i, name in enumerate(sorted({n for n in column if n is not None}))} for column in columns
        ]
        prefix = np.zeros((len(contents), len(columns)), np.int64)
        for level, column in enumerate(columns):
            prefix[:, level] = [0 if name is None else names[level][name] for name in column]
        last = unique_last_tokens(prefix)
        sizes = [len(level) + 1 for level in names] + [MAX_BRANCHING] * last.shape[1]
        return cls(np.concatenate([prefix, last], axis=1), sizes, names, depth)

    def prefix(self, content: ItemContent) -> list[list[int]]:
        given = [_at(content.category, level) for level in range(self.depth)]
        given += [content.brand] * (len(self.names) - self.depth)
        known = [[level.get(name or "", 0)] for level, name in zip(self.names, given, strict=True)]
        return known + self.free_levels(len(known))

    def _meta(self) -> dict[str, Any]:
        return {"names": self.names, "depth": self.depth}


def _at(path: tuple[str, ...], level: int) -> str | None:
    return path[level] if level < len(path) else None


def load_tokenizer(folder: Path) -> Tokenizer:
    """Read what `save` wrote. Raises ValueError for a kind this version does not know."""
    from model.semantic import SemanticTokenizer

    meta = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    with (folder / "tokenizer.npz").open("rb") as raw, np.load(raw, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    codes, sizes = arrays.pop("codes"), meta["code_sizes"]
    match meta["kind"]:
        case "atomic":
            return AtomicTokenizer(codes, sizes)
        case "hierarchical":
            return HierarchicalTokenizer(codes, sizes, meta["names"], meta["depth"])
        case "semantic":
            return SemanticTokenizer.from_parts(codes, sizes, meta, arrays)
        case other:
            raise ValueError(f"unknown tokenizer kind {other!r}: this file is from another version")
