"""Gated linear attention: a memory of constant size that each event decays, writes and reads.

    a_t = softplus(f · y_t + b + λ · log(1 + Δt))                   how much is forgotten, by event and by elapsed time
    S_t = exp(−a_t) S_{t−1} + σ(w · y_t) k_t v_tᵀ                   [d_k, d_v] for each head
    o_t = S_tᵀ q_t,   out = W_o (silu(W_g y_t) ⊙ norm(o_t))         y_t: the normed input, after a short convolution

The recurrence with a gate that depends on the data, the output gate and the chunk-wise parallel form are those of Yang
et al., "Gated linear attention transformers with hardware-efficient training", 2024 (arXiv 2312.06635). The gate is one
number for each head, as in Mamba-2 (Dao and Gu, 2024, arXiv 2405.21060) and in the mLSTM of Beck et al. (2024, arXiv
2405.04517), from which the input gate σ(w · y) is taken as well: only differences of logarithms that are never positive
are exponentiated, so the parallel form is stable at any length. The elapsed time enters the rate of forgetting as a
power law, as the step size of a continuous-time recurrence does (Gu and Dao, 2023, arXiv 2312.00752); λ is learned and
starts at 0. The heads start with half-lives from a few events to more than a thousand, as in RetNet (Sun et al., 2023,
arXiv 2307.08621). The convolution is causal, over four events, with a residual connection (Allen-Zhu, 2025, "Physics of
language models: part 4.1").

The state depends on all events there were, so it cannot be rebuilt from a log that was trimmed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from model.network.config import NetworkConfig
from model.network.encoders.base import MASK_SCORE, Events, StepEncoder, log_seconds
from service.artifact.graphs.state_layout import TIME_MS, StateArray, StateLayout

# Events of the short convolution, the newest included.
WIDTH = 4
# Events whose reads are computed in one product; the memory is carried from chunk to chunk.
CHUNK = 64
# Rates of forgetting, a, that the heads start between.
FASTEST, SLOWEST = 1 / 4, 1 / 2048

MEMORY, RECENT = "memory", "recent"


class GatedLinearBlock(nn.Module):
    """Pre-norm gated linear attention, then a feed-forward layer."""

    def __init__(self, c: NetworkConfig) -> None:
        super().__init__()
        self.heads, self.d_value = c.heads, c.d_head
        d_key = key_width(c)
        self.norm_mix = nn.LayerNorm(c.d_model)
        self.conv = nn.Parameter(torch.zeros(WIDTH, c.d_model))
        self.query = nn.Linear(c.d_model, c.heads * d_key, bias=False)
        self.key = nn.Linear(c.d_model, c.heads * d_key, bias=False)
        self.value = nn.Linear(c.d_model, c.heads * c.d_head, bias=False)
        self.gate = nn.Linear(c.d_model, c.heads * c.d_head, bias=False)
        self.write = nn.Linear(c.d_model, c.heads)
        self.forget = nn.Linear(c.d_model, c.heads)
        self.elapsed = nn.Parameter(torch.zeros(c.heads)) if c.has_time else None
        self.norm_read = nn.LayerNorm(c.d_head)
        self.out = nn.Linear(c.heads * c.d_head, c.d_model, bias=False)
        self.norm_ff = nn.LayerNorm(c.d_model)
        self.up = nn.Linear(c.d_model, c.d_ff)
        self.down = nn.Linear(c.d_ff, c.d_model)
        self.dropout = nn.Dropout(c.dropout)
        rates = torch.logspace(math.log2(FASTEST), math.log2(SLOWEST), c.heads, base=2)
        with torch.no_grad():
            self.forget.bias.copy_(torch.log(torch.expm1(rates)))  # the inverse of softplus

    def forward(
        self, x: Tensor, gap: Tensor, length: Tensor | None, memory: Tensor, recent: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Adds one chunk of events.

        Args:
            x: [B, T, d] inputs.
            gap: [B, T] log(1 + Δt in seconds) to the event before.
            length: [B] events of each row; None if no row is padded.
            memory: [B, heads, d_key, d_value] S before the chunk.
            recent: [B, WIDTH − 1, d] inputs of the convolution before the chunk.

        Returns:
            The outputs [B, T, d], and `memory` and `recent` after the last event of each row.
        """
        n = x.shape[1]
        seen = torch.cat([recent, self.norm_mix(x)], dim=1)
        y = seen[:, WIDTH - 1 :]
        for place in range(WIDTH):
            y = y + self.conv[place] * seen[:, place : n + place]
        mixed, memory = self.mix(y, gap, length, memory)
        x = x + self.dropout(mixed)
        x = x + self.dropout(self.down(F.gelu(self.up(self.norm_ff(x)))))
        if length is None:
            return x, memory, seen[:, n:]
        kept = length[:, None, None] + torch.arange(WIDTH - 1, device=x.device)[None, :, None]
        return x, memory, seen.gather(1, kept.expand(-1, -1, seen.shape[2]))

    def mix(self, y: Tensor, gap: Tensor, length: Tensor | None, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Returns what the events read [B, T, d], and the memory after them: the chunk-wise parallel form."""
        batch, n, _ = y.shape
        rate = self.forget(y)
        if self.elapsed is not None:
            rate = rate + self.elapsed * gap[..., None]
        rate, write = F.softplus(rate), torch.sigmoid(self.write(y))
        if length is not None:  # padding neither forgets nor writes
            event = (torch.arange(n, device=y.device)[None] < length[:, None]).to(y.dtype)[..., None]
            rate, write = rate * event, write * event
        age = rate.cumsum(dim=1).transpose(1, 2)  # [B, heads, T]
        query, key, value = (
            layer(y).view(batch, n, self.heads, -1).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        key = key * write.transpose(1, 2)[..., None]
        position = torch.arange(n, device=y.device)
        hidden = torch.where(position[:, None] >= position[None], 0.0, MASK_SCORE)
        decayed = (query @ key.transpose(-1, -2)) * torch.exp(age[..., None, :] - age[..., None] + hidden)
        read = decayed @ value + torch.exp(-age)[..., None] * (query @ memory)
        last = age[..., -1:]
        kept = key * torch.exp(age - last)[..., None]
        memory = torch.exp(-last)[..., None] * memory + kept.transpose(-1, -2) @ value
        read = self.norm_read(read).transpose(1, 2).reshape(batch, n, -1)
        out: Tensor = self.out(F.silu(self.gate(y)) * read)
        return out, memory


class GatedLinear(StepEncoder):
    """[gated linear attention, feed-forward] × layers."""

    remembers_trimmed: ClassVar[bool] = True

    def __init__(self, c: NetworkConfig) -> None:
        super().__init__(c)
        self.blocks = nn.ModuleList([GatedLinearBlock(c) for _ in range(c.layers)])

    @classmethod
    def state_layout(cls, c: NetworkConfig) -> StateLayout:
        """Returns the memories and the inputs of the convolution in float32, whose errors would add up in float16."""
        arrays = (
            StateArray(MEMORY, "float32", (c.layers, c.heads, key_width(c), c.d_head)),
            StateArray(RECENT, "float32", (c.layers, WIDTH - 1, c.d_model)),
            StateArray(TIME_MS, "int64", (1,), 0),
        )
        return StateLayout(c.d_model, 1, arrays, remembers_trimmed=True)

    def forward(self, x: Tensor, events: Events, context: Tensor | None) -> Tensor:
        """Returns the hidden states [B, T, d]; see `Encoder.forward`."""
        time_ms = events.time_ms
        gap = log_seconds(time_ms - torch.cat([time_ms[:, :1], time_ms[:, :-1]], dim=1))
        layout = self.state_layout(self.c)
        memory, recent = (x.new_zeros(len(x), *array.shape) for array in layout.arrays[:2])
        out = []
        for start in range(0, x.shape[1], CHUNK):
            chunk = slice(start, start + CHUNK)
            h, memory, recent = self._add(x[:, chunk], gap[:, chunk], None, memory, recent)
            out.append(h)
        return torch.cat(out, dim=1)

    def step(self, x: Tensor, events: Events, state: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Adds events to states; see `Encoder.step`."""
        assert events.length is not None  # noqa: S101 - what `Encoder.step` promises
        assert events.previous_ms is not None  # noqa: S101
        gap = log_seconds(events.time_ms - events.previous_ms)
        h, memory, recent = self._add(x, gap, events.length, state[MEMORY], state[RECENT])
        time_ms = events.time_ms.gather(1, events.length[:, None] - 1)
        return h, {MEMORY: memory, RECENT: recent, TIME_MS: time_ms}

    def _add(
        self, x: Tensor, gap: Tensor, length: Tensor | None, memory: Tensor, recent: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Runs a chunk through all layers; `memory` and `recent` are [B, layers, …]."""
        memories, recents = [], []
        for layer, block in enumerate(self.blocks):
            x, after, tail = block(x, gap, length, memory[:, layer], recent[:, layer])
            memories.append(after)
            recents.append(tail)
        return x, torch.stack(memories, dim=1), torch.stack(recents, dim=1)


def key_width(c: NetworkConfig) -> int:
    """Returns d_k: half of d_v, as in Yang et al. (2024), so that the memory takes half of the space."""
    return c.d_head // 2
