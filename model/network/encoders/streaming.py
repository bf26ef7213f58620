"""GPT4Rec's own backbone: causal attention in a window, rotary positions, decay over time.

Nothing in it depends on the request or on the length of the history, so a state can be carried from event to event.
`export/graphs/encoder.py` writes the same computation as a graph with that state.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from model.network.config import NetworkConfig, StateDtype
from model.network.encoders.base import MASK_SCORE, Encoder, Events, log_seconds
from service.artifact.graphs.state_layout import StateLayout, attention_layout

ROPE_BASE = 10_000.0


def quantise(x: Tensor, dtype: StateDtype) -> Tensor:
    """Returns keys or values after a round trip through the stored state.

    Attention reads quantised keys and values in the full pass too, so that streaming gives the same result. Gradients
    pass through unchanged (straight-through). int8 has one scale a vector: max|x| / 127.

    Args:
        x: [..., d_head] keys or values.
        dtype: How the state is stored.
    """
    if dtype == "float32":
        return x
    if dtype == "float16":
        return x + (x.to(torch.float16).to(x.dtype) - x).detach()
    scale = x.abs().amax(dim=-1, keepdim=True).clamp(min=1e-8) / 127.0
    return x + (torch.round(x / scale) * scale - x).detach()


def rotary(n: int, d_head: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Returns cosine and sine [n, d_head] of the rotary positions 0 to n − 1 (Su et al., 2021), halves layout."""
    frequency = ROPE_BASE ** (-torch.arange(0, d_head, 2, dtype=torch.float32, device=device) / d_head)
    angle = torch.arange(n, dtype=torch.float32, device=device)[:, None] * frequency
    angle = torch.cat([angle, angle], dim=-1)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates the last dimension: (x1, x2) → (x1·cos − x2·sin, x2·cos + x1·sin)."""
    half = x.shape[-1] // 2
    turned = torch.cat([-x[..., half:], x[..., :half]], dim=-1)
    return x * cos + turned * sin


class Block(nn.Module):
    """Pre-norm attention with one key/value head and time decay, then a feed-forward layer."""

    def __init__(self, c: NetworkConfig) -> None:
        super().__init__()
        self.c = c
        self.norm_attention = nn.LayerNorm(c.d_model)
        self.query = nn.Linear(c.d_model, c.heads * c.d_head, bias=False)
        self.key_value = nn.Linear(c.d_model, 2 * c.d_head, bias=False)
        self.out = nn.Linear(c.heads * c.d_head, c.d_model, bias=False)
        # softplus keeps the decay rate λ positive; it starts near zero, at plain attention.
        self.decay = nn.Parameter(torch.full((c.heads,), -3.0)) if c.has_time else None
        self.norm_ff = nn.LayerNorm(c.d_model)
        self.up = nn.Linear(c.d_model, c.d_ff)
        self.down = nn.Linear(c.d_ff, c.d_model)
        self.dropout = nn.Dropout(c.dropout)

    def forward(self, x: Tensor, mask: Tensor, elapsed: Tensor | None, rope: tuple[Tensor, Tensor]) -> Tensor:
        """Returns the block's output [B, T, d].

        Args:
            x: [B, T, d] inputs.
            mask: [B, T, T], added to the scores.
            elapsed: [B, T, T] log(1 + Δt in seconds) between events; None for data without times.
            rope: Cosine and sine of the positions, from `rotary`.
        """
        c = self.c
        batch, n, _ = x.shape
        y = self.norm_attention(x)
        query = self.query(y).view(batch, n, c.heads, c.d_head).transpose(1, 2)
        key, value = self.key_value(y).split(c.d_head, dim=-1)
        key, value = quantise(key, c.state_dtype), quantise(value, c.state_dtype)
        query, key = rotate(query, *rope), rotate(key, *rope)
        bias = mask[:, None]
        if self.decay is not None and elapsed is not None:
            bias = bias - F.softplus(self.decay)[None, :, None, None] * elapsed[:, None]
        shape = (batch, c.heads, n, c.d_head)
        attended = F.scaled_dot_product_attention(
            query,
            key[:, None].expand(shape),
            value[:, None].expand(shape),
            attn_mask=bias.expand(batch, c.heads, n, n),
        )
        x = x + self.dropout(self.out(attended.transpose(1, 2).reshape(batch, n, -1)))
        y = self.dropout(self.down(F.gelu(self.up(self.norm_ff(x)))))
        out: Tensor = x + y
        return out


class Streaming(Encoder):
    """The streaming encoder: [attention, feed-forward] × layers."""

    streams: ClassVar[bool] = True

    def __init__(self, c: NetworkConfig) -> None:
        super().__init__()
        self.c = c
        self.blocks = nn.ModuleList([Block(c) for _ in range(c.layers)])

    @classmethod
    def receptive_field(cls, c: NetworkConfig) -> int:
        """Returns how many events can influence h: the last one, `window` more a layer, and one for the oldest gap."""
        return c.layers * c.window + 2

    @classmethod
    def cuts(cls, c: NetworkConfig, max_length: int) -> tuple[int, int]:
        """Returns `max_length` and the window: a chunk needs no more context to compute the states after its cut."""
        return max_length, c.window

    @classmethod
    def state_layout(cls, c: NetworkConfig) -> StateLayout:
        """Returns keys, values and times of the newest `window` events. `export.graphs.encoder` writes the graph."""
        return attention_layout(c.layers, c.window, c.d_head, c.d_model, c.state_dtype)

    def forward(self, x: Tensor, events: Events, context: Tensor | None) -> Tensor:
        """Returns the hidden states [B, T, d]; see `Encoder.forward`.

        Where events are masked (pretraining alone), attention reads the window on both sides.
        """
        mask, elapsed, rope = self.geometry(events.time_ms, x)
        mask = mask[None]
        if events.masked is not None and events.length is not None:
            padding = torch.arange(x.shape[1], device=x.device) >= events.length[:, None]
            both = torch.maximum(mask, mask.transpose(1, 2)).masked_fill(padding[:, None], MASK_SCORE)
            mask, elapsed = both, None if elapsed is None else torch.maximum(elapsed, elapsed.transpose(1, 2))
        for block in self.blocks:
            x = block(x, mask, elapsed, rope)
        return x

    def geometry(self, time_ms: Tensor, x: Tensor) -> tuple[Tensor, Tensor | None, tuple[Tensor, Tensor]]:
        """Returns what attention needs to know of the positions.

        Args:
            time_ms: [B, T] times of the events.
            x: The input, for its dtype and device.

        Returns:
            The additive mask [T, T] of the causal window, log(1 + Δt in seconds) [B, T, T] (None for data without
            times), and the rotary positions.
        """
        n = time_ms.shape[1]
        position = torch.arange(n, device=x.device)
        distance = position[:, None] - position[None, :]
        allowed = (distance >= 0) & (distance <= self.c.window)
        mask = torch.zeros(n, n, device=x.device, dtype=x.dtype).masked_fill(~allowed, MASK_SCORE)
        elapsed = log_seconds(time_ms[:, :, None] - time_ms[:, None, :]) if self.c.has_time else None
        return mask, elapsed, rotary(n, self.c.d_head, x.device)
