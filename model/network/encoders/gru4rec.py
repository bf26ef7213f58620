"""GRU4Rec: a recurrent network over the events.

Hidasi et al., "Session-based recommendations with recurrent neural networks", 2016. It is trained with the joint loss
that all encoders here share, not with the paper's pairwise losses.
"""

from __future__ import annotations

from torch import Tensor, nn

from model.network.config import NetworkConfig
from model.network.encoders.base import Encoder, Events


class GRU4Rec(Encoder):
    """`layers` GRU layers and a linear layer."""

    def __init__(self, c: NetworkConfig) -> None:
        super().__init__()
        dropout = c.dropout if c.layers > 1 else 0.0
        self.gru = nn.GRU(c.d_model, c.d_model, c.layers, batch_first=True, dropout=dropout)
        self.out = nn.Linear(c.d_model, c.d_model)

    def forward(self, x: Tensor, events: Events, context: Tensor | None) -> Tensor:
        """Returns the hidden states [B, T, d]; see `Encoder.forward`."""
        h: Tensor = self.out(self.gru(x)[0])
        return h
