"""The hierarchical tokenizer: category path, brand, product, with levels that people can read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from model.tokenizers.item_content import ItemContent
from model.tokenizers.tokenizer import MAX_BRANCHING, Tokenizer, unique_last_tokens
from service.artifact.array_types import IntArray


class HierarchicalTokenizer(Tokenizer):
    """Tokens for the category path, then the brand, then the product. Token 0 stands for a missing or unseen name.

    Args:
        codes: [items, levels] paths of the catalogue.
        code_sizes: [levels] number of tokens of each level.
        names: For each level that has names, name → token: `depth` category levels, then the brand if items have one.
        depth: Number of category levels.
    """

    kind = "hierarchical"

    def __init__(
        self, codes: IntArray, code_sizes: Sequence[int], names: Sequence[Mapping[str, int]], depth: int
    ) -> None:
        super().__init__(codes, code_sizes)
        self.names = [dict(level) for level in names]
        self.depth = depth

    @classmethod
    def fit(cls, contents: Sequence[ItemContent], *, max_depth: int = 3) -> HierarchicalTokenizer:
        """Numbers the names of each level in sorted order.

        Args:
            contents: [items] contents in index order.
            max_depth: The most category levels.
        """
        depth = min(max_depth, max((len(c.category) for c in contents), default=0))
        columns = [[_name_at(c.category, level) for c in contents] for level in range(depth)]
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
        """Returns the token of each category level and of the brand; 0 for an unknown name."""
        given = [_name_at(content.category, level) for level in range(self.depth)]
        given += [content.brand] * (len(self.names) - self.depth)
        known = [[level.get(name or "", 0)] for level, name in zip(self.names, given, strict=True)]
        return known + self.free_levels(len(known))

    def _meta(self) -> dict[str, Any]:
        return {"names": self.names, "depth": self.depth}


def _name_at(path: tuple[str, ...], level: int) -> str | None:
    return path[level] if level < len(path) else None
