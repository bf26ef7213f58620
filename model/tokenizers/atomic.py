"""The item itself is its token."""

from __future__ import annotations

import numpy as np

from model.tokenizers.item_content import ItemContent
from model.tokenizers.tokenizer import Tokenizer


class AtomicTokenizer(Tokenizer):
    """One token an item. Spare tokens are kept for items that arrive after training."""

    kind = "atomic"

    @classmethod
    def fit(cls, n_items: int, *, spare: int = 0) -> AtomicTokenizer:
        return cls(np.arange(n_items, dtype=np.int64)[:, None], [n_items + spare])

    def prefix(self, content: ItemContent) -> list[list[int]]:  # noqa: ARG002
        return []
