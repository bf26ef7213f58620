"""GPT2Rec: the blocks of GPT-2 over item tokens instead of words.

Radford et al., "Language models are unsupervised multitask learners", 2019. A training may start the blocks from the
weights of a GPT-2 (`model.network.gpt2_weights`); a linear layer brings embedded events to where they expect words.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.network.config import NetworkConfig
from model.network.encoders.base import Encoder, Events, causal
from model.network.encoders.layers import PreNormBlock


class GPT2Rec(Encoder):
    """GPT-2's causal blocks over learned positions, which count from the oldest event of the window."""

    def __init__(self, c: NetworkConfig) -> None:
        super().__init__()
        self.adapt = nn.Linear(c.d_model, c.d_model)
        nn.init.eye_(self.adapt.weight)
        nn.init.zeros_(self.adapt.bias)
        self.position = nn.Embedding(self.receptive_field(c), c.d_model)
        nn.init.normal_(self.position.weight, std=0.02)
        self.blocks = nn.ModuleList([PreNormBlock(c, gelu="tanh") for _ in range(c.layers)])
        self.norm = nn.LayerNorm(c.d_model)

    def forward(self, x: Tensor, events: Events, context: Tensor | None) -> Tensor:
        """Returns the hidden states [B, T, d]; see `Encoder.forward`."""
        n = x.shape[1]
        x = self.adapt(x) + self.position(torch.arange(n, device=x.device))
        mask = causal(n, x)
        for block in self.blocks:
            x = block(x, mask)
        h: Tensor = self.norm(x)
        return h
