"""GPT4Rec's backbone with a prefix token that stands for the user.

The token embeds the user's features and comes before the first event. Every event attends to it, whatever the window;
Li et al. (2023) and others call it a prefix or prompt. The state depends on features that may change, so it cannot be
carried from event to event.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from model.network.encoders.base import Events
from model.network.encoders.streaming import Streaming


class Prefix(Streaming):
    """The streaming blocks over the prefix token and the events."""

    streams: ClassVar[bool] = False
    reads_context: ClassVar[bool] = True

    def forward(self, x: Tensor, events: Events, context: Tensor | None) -> Tensor:
        """Returns the hidden states [B, T, d]; see `Encoder.forward`."""
        token = torch.zeros_like(x[:, :1]) if context is None else context[:, None]
        time_ms = torch.cat([events.time_ms[:, :1], events.time_ms], dim=1)
        mask, elapsed, rope = self.geometry(time_ms, x)
        mask[:, 0] = 0.0  # the window never hides the token, and no time passes since it
        if elapsed is not None:
            elapsed[:, :, 0] = 0.0
        x = torch.cat([token, x], dim=1)
        for block in self.blocks:
            x = block(x, mask[None], elapsed, rope)
        return x[:, 1:]
