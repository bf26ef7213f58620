"""GRU4Rec: a recurrent network over the events.

Hidasi et al., "Session-based recommendations with recurrent neural networks", 2016, trained with the joint loss of all
encoders here in the place of its pairwise ones.
"""

from __future__ import annotations

from torch import Tensor, nn

from model.network.config import NetworkConfig
from model.network.encoders.base import Encoder, Events


class GRU4Rec(Encoder):
    def __init__(self, c: NetworkConfig) -> None:
        super().__init__()
        dropout = c.dropout if c.layers > 1 else 0.0
        self.gru = nn.GRU(c.d_model, c.d_model, c.layers, batch_first=True, dropout=dropout)
        self.out = nn.Linear(c.d_model, c.d_model)

    def forward(self, x: Tensor, events: Events, context: Tensor | None) -> Tensor:
        h: Tensor = self.out(self.gru(x)[0])
        return h
