"""Attention in a window whose pattern, positions and decay are settings: to compare with the default encoder.

    network.pattern     window    event i reads all of the newest `window` events
                        strided   the newest `stride` of them, and every `stride`-th of those before
                        fixed     its own block of `stride` events, counted from the start of the history, and the last
                                  event of each block before
                        routing   those that a small scorer chooses (`routing`)
    network.positions   rotary, relative, relative_time, sinusoid, none   (`attention_scores`)
    network.time_decay  logarithmic, exponential, linear, none            (`attention_scores`)

The strided and the fixed pattern are those of Child et al., "Generating long sequences with sparse transformers", 2019
(arXiv 1904.10509). A pattern says what may be read; it is a mask, so it takes as long as the whole window does.
Everything else is as in the default encoder (`streaming`), whose graph is written by hand for its one way of doing it.

The place in a block depends on all events there were: with the fixed pattern a state is rebuilt from a checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from model.network.config import NetworkConfig
from model.network.encoders.attention_scores import (
    Decay,
    RelativeBias,
    SinusoidScore,
    TimeBias,
    age_of,
    sinusoids,
)
from model.network.encoders.base import MASK_SCORE, Events, StepEncoder, log_seconds
from model.network.encoders.layers import picked, stored_dtype
from model.network.encoders.memory_encoder import CHUNK, KEYS_VALUES, window_arrays
from model.network.encoders.routing import Router
from model.network.encoders.streaming import quantise, rotary, rotate
from service.artifact.graphs.state_layout import TIME_MS, StateArray, StateLayout

COUNT = "count"


@dataclass(frozen=True)
class Geometry:
    """Where the keys of a chunk stand, and what each new event may read. Keys are those of past and new events.

    Attributes:
        allowed: [B, T, S] bool.
        distance: [T, S] i − j.
        rope: Cosine and sine of the slots [S, d_head]; None without rotary positions.
        age: [B, T, S] in the unit of the decay; None without one.
        elapsed: [B, T, S] log(1 + Δt in seconds); None where no position needs it.
        sinusoids: Those of distances [T, S, d_head], and of times [B, T, S, d_head]; None where no position needs them.
        kept: [B, W] slots of the next state.
    """

    allowed: Tensor
    distance: Tensor
    rope: tuple[Tensor, Tensor] | None
    age: Tensor | None
    elapsed: Tensor | None
    sinusoids: tuple[Tensor, Tensor | None] | None
    kept: Tensor


class WindowBlock(nn.Module):
    """Pre-norm attention with one key/value head, then a feed-forward layer."""

    def __init__(self, c: NetworkConfig) -> None:
        super().__init__()
        self.c = c
        self.norm_attention = nn.LayerNorm(c.d_model)
        self.query = nn.Linear(c.d_model, c.heads * c.d_head, bias=False)
        self.key_value = nn.Linear(c.d_model, 2 * c.d_head, bias=False)
        self.out = nn.Linear(c.heads * c.d_head, c.d_model, bias=False)
        self.decay = Decay(c) if decays(c) else None
        self.relative = RelativeBias(c) if c.positions in ("relative", "relative_time") else None
        self.time = TimeBias(c) if c.positions == "relative_time" and c.has_time else None
        self.sinusoid = SinusoidScore(c) if c.positions == "sinusoid" else None
        self.router = Router(c) if c.pattern == "routing" else None
        self.norm_ff = nn.LayerNorm(c.d_model)
        self.up = nn.Linear(c.d_model, c.d_ff)
        self.down = nn.Linear(c.d_ff, c.d_model)
        self.dropout = nn.Dropout(c.dropout)

    def forward(self, x: Tensor, at: Geometry, past: Tensor) -> tuple[Tensor, Tensor]:
        """Adds one chunk of events.

        Args:
            x: [B, T, d] inputs.
            at: Where everything stands.
            past: [B, W, 2 · d_head] keys and values of past events.

        Returns:
            The outputs [B, T, d], and keys and values of the next state.
        """
        c, (batch, n, _) = self.c, x.shape
        y = self.norm_attention(x)
        query = self.query(y).view(batch, n, c.heads, c.d_head).transpose(1, 2)
        both = torch.cat([past, quantise(self.key_value(y), stored_dtype(c))], dim=1)
        key, value = both[..., : c.d_head], both[..., c.d_head :]
        score = self.scores(query, key, at)
        if self.router is None:
            weight = score.softmax(dim=-1)
        else:
            read = self.router(y, key, at.allowed, at.distance == 0)[:, None]
            highest = torch.where(read.detach() > 0, score, MASK_SCORE).amax(dim=-1, keepdim=True)
            # What is not chosen counts for the gradient of its choice, and there for no more than the best that is.
            weight = torch.exp((score - highest.detach()).clamp(max=0)) * read
            weight = weight / weight.sum(dim=-1, keepdim=True)
        mixed = (weight @ value[:, None]).transpose(1, 2).reshape(batch, n, -1)
        x = x + self.dropout(self.out(mixed))
        x = x + self.dropout(self.down(F.gelu(self.up(self.norm_ff(x)))))
        return x, picked(both, at.kept)

    def scores(self, query: Tensor, key: Tensor, at: Geometry) -> Tensor:
        """Returns the scores [B, heads, T, S] of queries [B, heads, T, d_head] and keys [B, S, d_head]."""
        asked, read = query, key
        if at.rope is not None:
            past = key.shape[1] - query.shape[2]
            asked, read = rotate(query, at.rope[0][past:], at.rope[1][past:]), rotate(key, *at.rope)
        score = asked @ read.transpose(1, 2)[:, None]
        if self.sinusoid is not None and at.sinusoids is not None:
            score = score + self.sinusoid(query, *at.sinusoids)
        score = score * self.c.d_head**-0.5
        if self.relative is not None:
            score = score + self.relative(at.distance)
        if self.time is not None and at.elapsed is not None:
            score = score + self.time(at.elapsed)
        if self.decay is not None and at.age is not None:
            score = score + self.decay(at.age)
        return torch.where(at.allowed[:, None], score, MASK_SCORE)


class WindowAttention(StepEncoder):
    """[attention in a window, feed-forward] × layers."""

    def __init__(self, c: NetworkConfig) -> None:
        super().__init__(c)
        self.blocks = nn.ModuleList([WindowBlock(c) for _ in range(c.layers)])

    @classmethod
    def state_layout(cls, c: NetworkConfig) -> StateLayout:
        """Returns keys, values and times of the newest `window` events; for the fixed pattern also their number."""
        counted = c.pattern == "fixed"
        kv, time_ms = window_arrays(c)
        arrays = (kv, *([StateArray(COUNT, "int64", (1,))] if counted else []), time_ms)
        return StateLayout(c.d_model, c.window, arrays, remembers_trimmed=counted)

    def forward(self, x: Tensor, events: Events, context: Tensor | None) -> Tensor:
        """Returns the hidden states [B, T, d]; see `Encoder.forward`."""
        batch, c = len(x), self.c
        for module in self.modules():
            if isinstance(module, Router):
                module.forget()
        kv = x.new_zeros(batch, c.layers, c.window, 2 * c.d_head)
        past_ms = events.time_ms.new_zeros(batch, c.window)
        out = []
        for start in range(0, x.shape[1], CHUNK):
            chunk = slice(start, start + CHUNK)
            time_ms = events.time_ms[:, chunk]
            before, n = torch.full_like(time_ms[:, 0], start), torch.full_like(time_ms[:, 0], time_ms.shape[1])
            h, kv, past_ms = self._add(x[:, chunk], time_ms, n, before, kv, past_ms)
            out.append(h)
        return torch.cat(out, dim=1)

    def step(self, x: Tensor, events: Events, state: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Adds events to states; see `Encoder.step`."""
        assert events.length is not None  # noqa: S101 - what `Encoder.step` promises
        assert events.n_valid is not None  # noqa: S101
        before = state[COUNT][:, 0] if COUNT in state else events.n_valid
        kv = self.computed(x, state)[KEYS_VALUES]
        h, kv, time_ms = self._add(x, events.time_ms, events.length, before, kv, state[TIME_MS])
        after = {KEYS_VALUES: kv, TIME_MS: time_ms}
        if COUNT in state:
            after[COUNT] = state[COUNT] + events.length[:, None]
        return h, self.stored(after)

    def _add(
        self, x: Tensor, time_ms: Tensor, length: Tensor, before: Tensor, kv: Tensor, past_ms: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Runs a chunk through all layers.

        Args:
            x: [B, T, d] inputs.
            time_ms: [B, T] times of the new events.
            length: [B] new events of each row.
            before: [B] events before them, of which only the newest `window` matter but for the fixed pattern.
            kv: [B, layers, W, 2 · d_head] keys and values of past events.
            past_ms: [B, W] their times.
        """
        times = torch.cat([past_ms, time_ms], dim=1)
        at = self.geometry(times, time_ms, length, before)
        kept = []
        for layer, block in enumerate(self.blocks):
            x, after = block(x, at, kv[:, layer])
            kept.append(after)
        return x, torch.stack(kept, dim=1), times.gather(1, at.kept)

    def geometry(self, times: Tensor, time_ms: Tensor, length: Tensor, before: Tensor) -> Geometry:
        """Returns where everything stands: slot s holds event before − W + s of the history."""
        c, device = self.c, times.device
        slot = torch.arange(times.shape[1], device=device)
        reading = torch.arange(time_ms.shape[1], device=device) + c.window
        distance = reading[:, None] - slot[None]
        near = (distance >= 0) & (distance <= c.window)
        if c.pattern == "strided":
            near = near & ((distance < c.stride) | (distance % c.stride == 0))
        first = (c.window - before)[:, None]  # [B, 1] slot of the oldest event of the history
        allowed = near[None] & (slot >= first)[:, None]
        if c.pattern == "fixed":
            place = (slot - first).clamp(min=0)
            block = place // c.stride
            own = block[:, c.window :, None] == block[:, None]
            allowed = allowed & (own | (place % c.stride == c.stride - 1)[:, None])
        delta = time_ms[:, :, None] - times[:, None]
        timed = c.has_time and c.positions in ("relative_time", "sinusoid")
        elapsed = log_seconds(delta) if timed else None
        waves = None
        if c.positions == "sinusoid":
            waves = (
                sinusoids(distance.clamp(min=0).to(torch.float32), c.d_head),
                None if elapsed is None else sinusoids(elapsed, c.d_head),
            )
        return Geometry(
            allowed=allowed,
            distance=distance,
            rope=rotary(times.shape[1], c.d_head, device) if c.positions == "rotary" else None,
            age=age_of(delta, c.time_decay) if decays(c) else None,
            elapsed=elapsed,
            sinusoids=waves,
            kept=length[:, None] + torch.arange(c.window, device=device),
        )


def decays(c: NetworkConfig) -> bool:
    """Returns whether weights fall with the age of events."""
    return c.has_time and c.time_decay != "none"
