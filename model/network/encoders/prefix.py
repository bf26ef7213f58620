"""GPT4Rec's backbone behind a token that stands for the user.

The token, made of the user's features, comes before the first event and every event reads it, whatever the window: what
Li et al. (2023) and others call a prefix or prompt. The state then depends on features that may change, so it cannot
be carried on.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from model.network.encoders.base import Events
from model.network.encoders.streaming import Streaming


class Prefix(Streaming):
    streams: ClassVar[bool] = False
    reads_context: ClassVar[bool] = True

    def forward(self, x: Tensor, events: Events, context: Tensor | None) -> Tensor:
        token = torch.zeros_like(x[:, :1]) if context is None else context[:, None]
        time_ms = torch.cat([events.time_ms[:, :1], events.time_ms], dim=1)
        mask, elapsed, rope = self.geometry(time_ms, x)
        mask[:, 0] = 0.0  # no window hides the token, and it does not grow old
        if elapsed is not None:
            elapsed[:, :, 0] = 0.0
        x = torch.cat([token, x], dim=1)
        for block in self.blocks:
            x = block(x, mask[None], elapsed, rope)
        return x[:, 1:]
