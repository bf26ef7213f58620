"""The attributes of items (category, brand, price band, …) as vectors, for encoders that attend among features."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from model.network.config import NetworkConfig


class ItemAttributes(nn.Module):
    """One embedding for each attribute that the training knew.

    Attributes:
        rows: [N, slots] int64 attributes of each item, padded with 0; saved with the weights.
        value: [attribute rows, d] embeddings; row 0, the padding, is never read.
    """

    rows: Tensor

    def __init__(self, c: NetworkConfig) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(c.n_items, c.attribute_slots, dtype=torch.int64))
        self.value = nn.Embedding(c.n_attribute_rows, c.d_model)
        nn.init.normal_(self.value.weight, std=0.05)

    @torch.no_grad()
    def set_rows(self, rows: Tensor, first: int = 0) -> None:
        """Stores the attributes [N − first, slots] of all items from the number `first` on."""
        self.rows[first:] = rows

    def table(self, items: Tensor | None = None) -> Tensor:
        """Returns the attributes beside each row of `GPT4Rec.item_table`; unknown item and start token have none.

        Args:
            items: [R] item indices; None for the whole catalogue.
        """
        return F.pad(self.rows if items is None else self.rows[items], (0, 0, 0, 2))

    def forward(self, item: Tensor, items: Tensor | None, n_rows: int) -> tuple[Tensor, Tensor]:
        """Returns the embedded attributes [B, T, slots, d] of events, and where there are any [B, T, slots].

        Args:
            item: [B, T] rows of an item table.
            items: [R] the items that the table has; None for the whole catalogue.
            n_rows: Number of rows of the table.

        Raises:
            ValueError: The table has other items.
        """
        table = self.table(items)
        if len(table) != n_rows:
            raise ValueError(f"the item table has {n_rows} rows, the table of attributes {len(table)}")
        rows = F.embedding(item, table)
        return self.value(rows), rows > 0
