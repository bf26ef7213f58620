"""Embeddings of items that training has seen rarely or never: their content stands in for the id embedding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Share of the items that a training step treats as unseen, so that content learns to stand in (DropoutNet, Volkovs et
# al., 2017).
ID_DROPOUT = 0.2


class ItemContentGate(nn.Module):
    """Mixes id and content embeddings by how often an item was seen: g·id + (1 − g)·content.

    g = seen / (seen + κ) with κ learned, so an item that was never seen is its content. The result folds into the item
    table: inference needs neither the gate nor the content.
    """

    vectors: Tensor
    seen: Tensor

    def __init__(self, n_items: int, content: int, d_model: int) -> None:
        super().__init__()
        self.register_buffer("vectors", torch.zeros(n_items, content))
        self.register_buffer("seen", torch.zeros(n_items))
        self.project = nn.Linear(content, d_model, bias=False)
        self.log_kappa = nn.Parameter(torch.zeros(1))
        nn.init.normal_(self.project.weight, std=0.05)

    @torch.no_grad()
    def set_content(self, vectors: Tensor, seen: Tensor) -> None:
        """Stores the content vectors [N, content] and how often training saw each item [N]."""
        self.vectors.copy_(vectors)
        self.seen.copy_(seen)

    @property
    def unseen_with_content(self) -> Tensor:
        """[N] bool, the items that training never saw and whose content stands in for them.

        They must not be candidates of the loss. They are never a target, so it would only push them away, and with
        them the content that stands in for them. An unseen item without content stays a candidate: pushing it away
        loses nothing, and otherwise its random start would be ranked.
        """
        return (self.seen == 0) & self.vectors.any(dim=1)

    def forward(self, ids: Tensor, rows: Tensor | None) -> Tensor:
        """Returns the mixed embeddings. An item without content keeps its id embedding.

        Args:
            ids: [R, d] id embeddings of the items `rows`.
            rows: [R] item indices; None for the whole catalogue.

        Returns:
            [R, d].
        """
        vectors, seen = (self.vectors, self.seen) if rows is None else (self.vectors[rows], self.seen[rows])
        gate = seen / (seen + self.log_kappa.exp())
        if self.training:
            gate = gate * (torch.rand(gate.shape, device=gate.device) >= ID_DROPOUT)
        gate = torch.where(vectors.any(dim=1), gate, 1.0)[:, None]
        out: Tensor = gate * ids + (1 - gate) * self.project(vectors)
        return out
