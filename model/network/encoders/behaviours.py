"""Clicks, purchases and searches as sequences of their own, whose states are added with learned weights.

    h = α · h_click + β · h_purchase + γ · h_search

Each stream has causal Transformer blocks of its own, which see the events of that stream alone, in their order. The
weights are positive and add up to 1. A state also says how many events ago its stream last moved, because the streams
alone no longer show which came last. A stream without events has a learned state.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from model.network.behaviour_streams import STREAMS, stream_of_types
from model.network.config import NetworkConfig
from model.network.encoders.base import MASK_SCORE, Encoder, Events
from model.network.encoders.layers import PreNormBlock


class Behaviours(Encoder):
    """One encoder for each stream, and the weights α, β and γ.

    Attributes:
        share: [streams] the logarithms of the weights, up to a constant.
    """

    stream_of: Tensor

    def __init__(self, c: NetworkConfig) -> None:
        super().__init__()
        self.register_buffer("stream_of", torch.tensor(stream_of_types(c.n_types)), persistent=False)
        self.position = nn.Embedding(self.receptive_field(c), c.d_model)
        nn.init.normal_(self.position.weight, std=0.02)
        self.blocks = nn.ModuleList(nn.ModuleList(PreNormBlock(c) for _ in range(c.layers)) for _ in STREAMS)
        self.norm = nn.ModuleList(nn.LayerNorm(c.d_model) for _ in STREAMS)
        self.empty = nn.Parameter(torch.randn(len(STREAMS), c.d_model) * 0.05)
        self.age = nn.Parameter(torch.zeros(len(STREAMS), c.d_model))
        self.share = nn.Parameter(torch.zeros(len(STREAMS)))

    def forward(self, x: Tensor, events: Events, context: Tensor | None) -> Tensor:
        """Returns the hidden states [B, T, d]; see `Encoder.forward`."""
        return self.fused(self.states(x, events))

    def weights(self) -> Tensor:
        """Returns α, β and γ [streams]; they add up to 1."""
        return self.share.softmax(0)

    def fused(self, states: Tensor) -> Tensor:
        """Returns h [B, T, d] of the states [B, T, streams, d]."""
        return (states * self.weights()[:, None]).sum(dim=2)

    def states(self, x: Tensor, events: Events) -> Tensor:
        """Returns the state of every stream after each event, [B, T, streams, d].

        Args:
            x: [B, T, d] embedded events.
            events: Their types.
        """
        place = torch.arange(x.shape[1], device=x.device)
        stream = self.stream_of[events.type]
        return torch.stack([self._stream(x, stream == s, s, place) for s in range(len(STREAMS))], dim=2)

    def _stream(self, x: Tensor, mine: Tensor, s: int, place: Tensor) -> Tensor:
        """[B, T, d] the state of stream s after each event; `mine` [B, T] are its events, `place` is 0 … T − 1."""
        rank = (mine.cumsum(1) - 1).clamp(min=0)
        y = x + self.position(rank)
        # Events of other streams see themselves alone, so that no row of the attention is empty. Nobody reads them.
        itself = place[:, None] == place
        seen = (mine[:, None] & (place[:, None] >= place)) | itself
        mask = torch.zeros(seen.shape, device=x.device, dtype=x.dtype).masked_fill(~seen, MASK_SCORE)[:, None]
        for block in cast(nn.ModuleList, self.blocks[s]):
            y = block(y, mask)
        y = self.norm[s](y)
        newest = torch.where(mine, place, -1).cummax(1).values
        found = y.gather(1, newest.clamp(min=0)[..., None].expand_as(y))
        state = torch.where((newest >= 0)[..., None], found, self.empty[s].to(y.dtype))
        ago = torch.log1p((place - newest).to(torch.float32))[..., None]
        return state + (ago * self.age[s]).to(y.dtype)
