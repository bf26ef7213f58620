"""SASRec: causal self-attention over learned absolute positions.

Kang & McAuley, "Self-attentive sequential recommendation", 2018. The block follows the public implementations: only the
query is normalised, and the residual connection adds to the normalised query.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from model.network.config import NetworkConfig
from model.network.encoders.base import Encoder, Events, causal
from model.network.encoders.layers import Attention


class SASRecBlock(nn.Module):
    """Attention and a feed-forward layer, each with a residual connection."""

    def __init__(self, c: NetworkConfig) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(c.d_model)
        self.attention = Attention(c)
        self.norm_ff = nn.LayerNorm(c.d_model)
        self.up = nn.Linear(c.d_model, c.d_ff)
        self.down = nn.Linear(c.d_ff, c.d_model)
        self.dropout = nn.Dropout(c.dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Returns the block's output [B, T, d]; `mask` [T, T] is added to the scores."""
        query = self.norm_attention(x)
        x = self.norm_ff(query + self.dropout(self.attention(query, x, mask)))
        out: Tensor = x + self.dropout(self.down(self.dropout(F.relu(self.up(x)))))
        return out


class SASRec(Encoder):
    """SASRec blocks over learned positions, which count from the oldest event of the window."""

    def __init__(self, c: NetworkConfig) -> None:
        super().__init__()
        self.position = nn.Embedding(self.receptive_field(c), c.d_model)
        nn.init.normal_(self.position.weight, std=0.02)
        self.blocks = nn.ModuleList([SASRecBlock(c) for _ in range(c.layers)])
        self.norm = nn.LayerNorm(c.d_model)

    def forward(self, x: Tensor, events: Events, context: Tensor | None) -> Tensor:
        """Returns the hidden states [B, T, d]; see `Encoder.forward`."""
        n = x.shape[1]
        x = x + self.position(torch.arange(n, device=x.device))
        mask = causal(n, x)
        for block in self.blocks:
            x = block(x, mask)
        h: Tensor = self.norm(x)
        return h
