"""BERT4Rec: bidirectional attention, trained on masked items.

Sun et al., "BERT4Rec: sequential recommendation with bidirectional encoder representations from Transformer", 2019. At
inference a masked event after the history predicts the next item. A masked event has neither type nor time.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from model.network.config import NetworkConfig
from model.network.encoders.base import MASK_SCORE, Encoder, Events, Task
from model.network.encoders.layers import PreNormBlock


class BERT4Rec(Encoder):
    """Pre-norm Transformer blocks over learned positions, without a causal mask."""

    task: ClassVar[Task] = "masked"

    def __init__(self, c: NetworkConfig) -> None:
        super().__init__()
        self.position = nn.Embedding(self.receptive_field(c) + 1, c.d_model)
        self.hidden = nn.Parameter(torch.randn(c.d_model) * 0.05)
        nn.init.normal_(self.position.weight, std=0.02)
        self.blocks = nn.ModuleList([PreNormBlock(c) for _ in range(c.layers)])
        self.norm = nn.LayerNorm(c.d_model)

    def forward(self, x: Tensor, events: Events, context: Tensor | None) -> Tensor:
        """Returns the hidden states [B, T, d]. Needs `events.length` and `events.masked`."""
        assert events.length is not None  # noqa: S101 - documented above
        assert events.masked is not None  # noqa: S101 - documented above
        position = torch.arange(x.shape[1], device=x.device)
        x = torch.where(events.masked[..., None], self.hidden.to(x.dtype), x) + self.position(position)
        padding = position >= events.length[:, None]
        mask = torch.zeros(padding.shape, device=x.device, dtype=x.dtype).masked_fill(padding, MASK_SCORE)
        mask = mask[:, None, None]
        for block in self.blocks:
            x = block(x, mask)
        h: Tensor = self.norm(x)
        return h

    def last(self, x: Tensor, events: Events, context: Tensor | None) -> Tensor:
        """Returns the hidden state [B, d] of a masked event appended to each history."""
        assert events.length is not None  # noqa: S101 - documented in the base class
        longer = torch.cat([x, torch.zeros_like(x[:, :1])], dim=1)
        masked = torch.arange(longer.shape[1], device=x.device) == events.length[:, None]
        h: Tensor = self(longer, replace(events, length=events.length + 1, masked=masked), context)
        return h[masked]
