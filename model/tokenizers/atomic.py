"""The atomic tokenizer: every item is a token of its own."""

from __future__ import annotations

import numpy as np

from model.tokenizers.item_content import ItemContent
from model.tokenizers.tokenizer import Tokenizer


class AtomicTokenizer(Tokenizer):
    """One token for each item, with spare tokens for items that arrive after the training."""

    kind = "atomic"

    @classmethod
    def fit(cls, n_items: int, *, spare: int = 0) -> AtomicTokenizer:
        """Numbers the items in index order and adds `spare` free tokens."""
        return cls(np.arange(n_items, dtype=np.int64)[:, None], [n_items + spare])

    def prefix(self, content: ItemContent) -> list[list[int]]:  # noqa: ARG002
        """Returns no candidates: the only level is the last one."""
        return []
