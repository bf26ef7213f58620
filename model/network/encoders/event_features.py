"""Attention among the features of one event: its item, its type and time, and the item's attributes.

    y_f = x_f + Σ_g softmax_g(q_f · k_g / √d_head) v_g        g: the features that the event has
    z   = mean of y_f over the features that the event has

So an event is a short sequence before it is one vector, and what a category means can depend on the brand beside it, or
on whether the item was bought. The features have no order.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.network.config import NetworkConfig
from model.network.encoders.base import MASK_SCORE, Events
from model.network.encoders.layers import Attention


class FeatureAttention(nn.Module):
    """Makes one vector of the features of each event."""

    def __init__(self, c: NetworkConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(c.d_model)
        self.attention = Attention(c)
        self.dropout = nn.Dropout(c.dropout)

    def forward(self, events: Events) -> Tensor:
        """Returns the vectors [B, T, d] of events that have `attributes`."""
        attributes, there = events.attributes, events.has_attribute
        assert attributes is not None  # noqa: S101 - documented above
        assert there is not None  # noqa: S101
        features = torch.stack([events.items, events.features], dim=2)
        x = torch.cat([features, attributes.to(features)], dim=2)
        known = torch.cat([torch.ones_like(there[..., :1]).expand(-1, -1, 2), there], dim=2)
        batch, n, f, d = x.shape
        x, known = x.view(batch * n, f, d), known.view(batch * n, f)
        mask = torch.zeros(known.shape, device=x.device, dtype=x.dtype).masked_fill(~known, MASK_SCORE)[:, None, None]
        y = self.norm(x)
        y = x + self.dropout(self.attention(y, y, mask))
        share = known.to(y.dtype) / known.sum(1, keepdim=True)
        z: Tensor = (y * share[..., None]).sum(1).view(batch, n, d)
        return z
