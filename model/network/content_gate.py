"""What stands in for items that training has seen seldom or never: content in the place of an id embedding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Share of the items that a training step takes for unseen, so that content learns to stand in (DropoutNet, Volkovs et
# al., 2017).
ID_DROPOUT = 0.2


class ItemContentGate(nn.Module):
    """Id and content embeddings mixed by how often an item was seen: g·id + (1 − g)·content, g = seen / (seen + κ)
    with κ learned. An item that was never seen is its content; all of it folds into the item table."""

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
    def tell(self, vectors: Tensor, seen: Tensor) -> None:
        """What the items are: vectors [N, content] and how often each was seen in training, [N]."""
        self.vectors.copy_(vectors)
        self.seen.copy_(seen)

    @property
    def stood_in(self) -> Tensor:
        """[N] items that were never seen and have content. Never a target, they would only be pushed away by a loss,
        and the content that stands for them with them. One without content is pushed like any other: nothing is lost,
        and its random start would be ranked otherwise."""
        return (self.seen == 0) & self.vectors.any(dim=1)

    def forward(self, ids: Tensor, rows: Tensor | None) -> Tensor:
        """ids [R, d] of the items `rows` (all without) → [R, d]. Items without any content keep their id."""
        vectors, seen = (self.vectors, self.seen) if rows is None else (self.vectors[rows], self.seen[rows])
        gate = seen / (seen + self.log_kappa.exp())
        if self.training:
            gate = gate * (torch.rand(gate.shape, device=gate.device) >= ID_DROPOUT)
        gate = torch.where(vectors.any(dim=1), gate, 1.0)[:, None]
        out: Tensor = gate * ids + (1 - gate) * self.project(vectors)
        return out
