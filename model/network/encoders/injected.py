"""GPT4Rec's backbone with the user added before every layer: h + α·u, with α learned for each layer.

u embeds the user's features. They may change, so the state cannot be carried from event to event.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from model.network.config import NetworkConfig
from model.network.encoders.base import Events
from model.network.encoders.streaming import Streaming


class Injected(Streaming):
    """The streaming blocks with α·u added to each block's input."""

    streams: ClassVar[bool] = False
    reads_context: ClassVar[bool] = True

    def __init__(self, c: NetworkConfig) -> None:
        super().__init__(c)
        self.alpha = nn.Parameter(torch.full((c.layers,), 0.1))

    def forward(self, x: Tensor, events: Events, context: Tensor | None) -> Tensor:
        """Returns the hidden states [B, T, d]; see `Encoder.forward`."""
        mask, elapsed, rope = self.geometry(events.time_ms, x)
        for alpha, block in zip(self.alpha, self.blocks, strict=True):
            if context is not None:
                x = x + alpha * context[:, None]
            x = block(x, mask[None], elapsed, rope)
        return x
