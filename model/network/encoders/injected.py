"""GPT4Rec's backbone with the user added before every layer: h + α·u, α learned for each layer.

u is made of the user's features, so the state depends on what may change and cannot be carried on.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from model.network.config import NetworkConfig
from model.network.encoders.base import Events
from model.network.encoders.streaming import Streaming


class Injected(Streaming):
    streams: ClassVar[bool] = False
    reads_context: ClassVar[bool] = True

    def __init__(self, c: NetworkConfig) -> None:
        super().__init__(c)
        self.alpha = nn.Parameter(torch.full((c.layers,), 0.1))

    def forward(self, x: Tensor, events: Events, context: Tensor | None) -> Tensor:
        mask, elapsed, rope = self.geometry(events.time_ms, x)
        for alpha, block in zip(self.alpha, self.blocks, strict=True):
            if context is not None:
                x = x + alpha * context[:, None]
            x = block(x, mask[None], elapsed, rope)
        return x
