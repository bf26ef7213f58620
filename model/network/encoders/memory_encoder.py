"""What encoders with a memory beside the window share: blocks that add events, and the pass over a history.

The attention is that of the default encoder (`streaming`), with the keys and values of the newest `window` events
carried from chunk to chunk. A whole history is encoded as it is streamed: chunk by chunk, by the same code.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from model.network.config import NetworkConfig
from model.network.encoders.base import MASK_SCORE, Events, StepEncoder, log_seconds
from model.network.encoders.layers import picked, stored_dtype
from model.network.encoders.streaming import Block, quantise, rotary, rotate
from service.artifact.graphs.state_layout import TIME_MS, StateArray

# Events of a history that are added at once; the state is carried from chunk to chunk.
CHUNK = 64

KEYS_VALUES = "kv"


@dataclass(frozen=True)
class Window:
    """Where the keys of a chunk stand, and what each new event may read: past events first, then the new ones.

    Attributes:
        mask: [B, 1, T, W + T] added to the scores.
        elapsed: [B, 1, T, W + T] log(1 + Δt in seconds).
        rope: Cosine and sine of the rotary positions [W + T, d_head].
        kept: [B, W] slots of the next state.
    """

    mask: Tensor
    elapsed: Tensor
    rope: tuple[Tensor, Tensor]
    kept: Tensor

    @classmethod
    def of(cls, c: NetworkConfig, events: Events, past_ms: Tensor) -> Window:
        """Places a chunk behind a state.

        Args:
            c: Shape of the network.
            events: The new events, with `length` and `n_valid`.
            past_ms: [B, W] times of past events, right-aligned.
        """
        assert events.length is not None  # noqa: S101 - what `Encoder.step` promises
        assert events.n_valid is not None  # noqa: S101
        device, n = past_ms.device, events.time_ms.shape[1]
        slot = torch.arange(c.window + n, device=device)
        distance = slot[c.window :, None] - slot
        valid = slot >= c.window - events.n_valid[:, None, None]
        seen = (distance >= 0) & (distance <= c.window) & valid
        times = torch.cat([past_ms, events.time_ms], dim=1)
        return cls(
            mask=torch.where(seen, 0.0, MASK_SCORE)[:, None],
            elapsed=log_seconds(events.time_ms[:, :, None] - times[:, None])[:, None],
            rope=rotary(c.window + n, c.d_head, device),
            kept=events.length[:, None] + torch.arange(c.window, device=device),
        )


class CarriedBlock(Block):
    """A block of the default encoder that adds a chunk to the keys and values of past events."""

    def add(self, x: Tensor, window: Window, past: Tensor) -> tuple[Tensor, Tensor]:
        """Adds one chunk of events.

        Args:
            x: [B, T, d] inputs.
            window: Where everything stands.
            past: [B, W, 2 · d_head] keys and values of past events.

        Returns:
            The outputs [B, T, d], and keys and values of the next state.
        """
        c, (batch, n, _) = self.c, x.shape
        y = self.norm_attention(x)
        both = torch.cat([past, quantise(self.key_value(y), stored_dtype(c))], dim=1)
        key, value = both[..., : c.d_head], both[..., c.d_head :]
        cos, sin = window.rope
        query = rotate(
            self.query(y).view(batch, n, c.heads, c.d_head).transpose(1, 2), cos[c.window :], sin[c.window :]
        )
        score = query @ rotate(key, cos, sin).transpose(1, 2)[:, None] * c.d_head**-0.5 + window.mask
        if self.decay is not None:
            score = score - F.softplus(self.decay)[:, None, None] * window.elapsed
        read = (score.softmax(dim=-1) @ value[:, None]).transpose(1, 2).reshape(batch, n, -1)
        x = x + self.dropout(self.out(read))
        x = x + self.dropout(self.down(F.gelu(self.up(self.norm_ff(x)))))
        return x, picked(both, window.kept)


class MemoryEncoder(StepEncoder):
    """An encoder with [attention in a window, feed-forward] × layers, and a memory that `add` reads and writes."""

    remembers_trimmed: ClassVar[bool] = True
    shows_memory: ClassVar[bool] = True

    def __init__(self, c: NetworkConfig) -> None:
        super().__init__(c)
        self.blocks = nn.ModuleList([CarriedBlock(c) for _ in range(c.layers)])

    @abstractmethod
    def add(self, x: Tensor, events: Events, state: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Adds a chunk of events to states whose floats have the type of x; see `Encoder.step`."""

    @abstractmethod
    def read(self, x: Tensor, events: Events, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns what the last event of a chunk reads from such states; see `Encoder.memory_read`."""

    def memory_read(self, x: Tensor, events: Events, state: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Returns what the last event of each row read; see `Encoder.memory_read`, and `read` for the names."""
        if state is not None:
            return self.read(x, events, self.computed(x, state))
        whole = replace(chunk_of(events, 0, x.shape[1], self.c.window), length=events.length)
        return self.read(x, whole, self.empty(x))

    def forward(self, x: Tensor, events: Events, context: Tensor | None) -> Tensor:
        """Returns the hidden states [B, T, d]; see `Encoder.forward`."""
        state, out = self.empty(x), []
        for start in range(0, x.shape[1], CHUNK):
            h, state = self.add(x[:, start : start + CHUNK], chunk_of(events, start, CHUNK, self.c.window), state)
            out.append(h)
        return torch.cat(out, dim=1)

    def step(self, x: Tensor, events: Events, state: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Adds events to states; see `Encoder.step`."""
        h, after = self.add(x, events, self.computed(x, state))
        return h, self.stored(after)

    def attend(self, x: Tensor, events: Events, state: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Runs a chunk through the blocks. Returns their outputs [B, T, d], and the arrays of `window_arrays`."""
        window = Window.of(self.c, events, state[TIME_MS])
        after = []
        for layer, block in enumerate(self.blocks):
            x, kept = cast("CarriedBlock", block).add(x, window, state[KEYS_VALUES][:, layer])
            after.append(kept)
        times = torch.cat([state[TIME_MS], events.time_ms], dim=1)
        return x, {KEYS_VALUES: torch.stack(after, dim=1), TIME_MS: times.gather(1, window.kept)}


def window_arrays(c: NetworkConfig) -> tuple[StateArray, StateArray]:
    """Returns the arrays of a window: keys and values of every layer, and times."""
    return (
        StateArray(KEYS_VALUES, stored_dtype(c), (c.layers, c.window, 2 * c.d_head), 1),
        StateArray(TIME_MS, "int64", (c.window,), 0),
    )


def chunk_of(events: Events, start: int, size: int, window: int) -> Events:
    """Returns `size` events of whole histories as `Encoder.step` gets them; padding counts as events.

    Nothing of a causal encoder depends on the padding behind it.

    Args:
        events: The histories.
        start: The first event of the chunk.
        size: Events of the chunk, fewer at the end of the histories.
        window: Events that the window of a state holds.
    """
    chunk = slice(start, start + size)
    time_ms = events.time_ms[:, chunk]
    rows = torch.ones_like(time_ms[:, 0])
    before = events.time_ms[:, max(start - 1, 0)]
    return replace(
        events,
        type=events.type[:, chunk],
        time_ms=time_ms,
        items=events.items[:, chunk],
        features=events.features[:, chunk],
        session=None if events.session is None else events.session[:, chunk],
        length=rows * time_ms.shape[1],
        previous_ms=torch.cat([before[:, None], time_ms[:, :-1]], dim=1),
        n_valid=rows * min(start, window),
    )


def earlier(x: Tensor, offset: int = 0) -> Tensor:
    """Returns [T, T]: whether the second of two events of x [B, T, …] is `offset` events earlier than the first.

    With the offset 0 an event is earlier than itself.
    """
    place = torch.arange(x.shape[1], device=x.device)
    return place[:, None] - place >= offset
