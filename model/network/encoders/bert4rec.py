"""BERT4Rec: attention in both directions, trained on hidden items.

Sun et al., "BERT4Rec: sequential recommendation with bidirectional encoder representations from Transformer", 2019. The
next item is asked for with a hidden event behind the history. What is hidden has neither type nor time.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from model.network.config import NetworkConfig
from model.network.encoders.base import MASKED, Encoder, Events, Task
from model.network.encoders.layers import PreNormBlock


class BERT4Rec(Encoder):
    task: ClassVar[Task] = "masked"

    def __init__(self, c: NetworkConfig) -> None:
        super().__init__()
        self.position = nn.Embedding(self.receptive_field(c) + 1, c.d_model)
        self.hidden = nn.Parameter(torch.randn(c.d_model) * 0.05)
        nn.init.normal_(self.position.weight, std=0.02)
        self.blocks = nn.ModuleList([PreNormBlock(c) for _ in range(c.layers)])
        self.norm = nn.LayerNorm(c.d_model)

    def forward(self, x: Tensor, events: Events, context: Tensor | None) -> Tensor:
        """Needs `events.length` and `events.asked`."""
        assert events.length is not None and events.asked is not None  # noqa: S101 - said above
        place = torch.arange(x.shape[1], device=x.device)
        x = torch.where(events.asked[..., None], self.hidden.to(x.dtype), x) + self.position(place)
        padding = place >= events.length[:, None]
        mask = torch.zeros(padding.shape, device=x.device, dtype=x.dtype).masked_fill(padding, MASKED)[:, None, None]
        for block in self.blocks:
            x = block(x, mask)
        h: Tensor = self.norm(x)
        return h

    def last(self, x: Tensor, events: Events, context: Tensor | None) -> Tensor:
        """One more event is hidden behind each history."""
        assert events.length is not None  # noqa: S101 - as the base says
        longer = torch.cat([x, torch.zeros_like(x[:, :1])], dim=1)
        asked = torch.arange(longer.shape[1], device=x.device) == events.length[:, None]
        h: Tensor = self(longer, replace(events, length=events.length + 1, asked=asked), context)
        return h[asked]
