"""A Transformer encoder–decoder: the decoder reads the items and attends to what happened when.

The encoder reads what is known of the events besides their items: type, gap, day, week and month. The decoder reads the
items (id and codes) with attention to the encoder's output. Both are causal, so every position can be trained (Vaswani
et al., 2017). With `network.attribute_slots` the encoder reads the item and its attributes as well: attention among the
features of an event makes its vector (event_features.py), then attention over time goes on.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.network.config import NetworkConfig
from model.network.encoders.base import Encoder, Events, causal
from model.network.encoders.event_features import FeatureAttention
from model.network.encoders.layers import PreNormBlock


class EncoderDecoder(Encoder):
    """`layers` blocks over the event features, then `layers` blocks over the items with cross-attention."""

    def __init__(self, c: NetworkConfig) -> None:
        super().__init__()
        self.position = nn.Embedding(self.receptive_field(c), c.d_model)
        nn.init.normal_(self.position.weight, std=0.02)
        self.dropout = nn.Dropout(c.dropout)
        self.of_features = FeatureAttention(c) if c.attribute_slots else None
        self.reads = nn.ModuleList([PreNormBlock(c) for _ in range(c.layers)])
        self.read_norm = nn.LayerNorm(c.d_model)
        self.blocks = nn.ModuleList([PreNormBlock(c, cross=True) for _ in range(c.layers)])
        self.norm = nn.LayerNorm(c.d_model)

    def forward(self, x: Tensor, events: Events, context: Tensor | None) -> Tensor:
        """Returns the hidden states [B, T, d]; see `Encoder.forward`."""
        n = x.shape[1]
        mask, position = causal(n, x), self.position(torch.arange(n, device=x.device))
        about = events.features if self.of_features is None else self.of_features(events)
        memory = self.dropout(about + position)
        for block in self.reads:
            memory = block(memory, mask)
        memory = self.read_norm(memory)
        x = self.dropout(events.items + position)
        for block in self.blocks:
            x = block(x, mask, memory)
        h: Tensor = self.norm(x)
        return h
