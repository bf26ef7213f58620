"""Compressive memory: what leaves the window is compressed, c events to one, into a second window behind it.

    block j     the events j·c … (j + 1)·c − 1 of the history, each with its key and value
    entry j     key and value of block j, compressed (`network.compression`):
                mean          the mean of the block
                convolution   Σ_i w_i ⊙ k_i, with weights by place and dimension (a convolution of stride c)
                attention     Σ_i softmax_i(u · k_i) k_i, with a learned u
    event t     attends to itself, to the events of the window, and to the newest `memory_slots` entries of blocks that
                have left it; a block is read as events until all of it has left

The design is that of Rae et al., "Compressive transformers for long-range sequence modelling", 2020 (arXiv 1911.05507),
where keys and values are compressed as well. There a loss of its own trains the compression; here the loss of the next
item does, through the entries. Attention has one key/value head, rotary positions and a decay by elapsed time, as that
of the default encoder (`streaming`); an entry stands at the middle of its block and has the time of its last event. A
learned bias for each head, log c at first, weighs entries against events.

Entries are what is left of events that the log may no longer keep, so a state is rebuilt from a checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from model.network.config import NetworkConfig
from model.network.encoders.base import MASK_SCORE, Events, StepEncoder, log_seconds
from model.network.encoders.layers import picked, stored_dtype
from model.network.encoders.streaming import ROPE_BASE, quantise, rotate
from service.artifact.graphs.state_layout import TIME_MS, StateArray, StateLayout

# Events that are added at once; keys, values and entries are carried from chunk to chunk.
CHUNK = 64

EVENTS, ENTRIES, ENTRY_MS, COUNT = "kv", "entries", "entry_ms", "count"


@dataclass(frozen=True)
class Places:
    """Where the keys of a chunk stand, and what each new event may read.

    The keys are those of the entries, then those of past and new events.

    Attributes:
        position: [B, S] distance from the oldest slot, in events.
        query: [T] the same of the new events.
        mask: [B, T, S] added to the scores.
        elapsed: [B, T, S] log(1 + Δt in seconds).
        is_entry: [S] 1 for entries, else 0.
        block: [B, new entries · c] slot of each event of the blocks that the chunk may complete.
        kept_entries: [B, m] entries of the next state.
        kept_events: [B, W] slots of the next state.
    """

    position: Tensor
    query: Tensor
    mask: Tensor
    elapsed: Tensor
    is_entry: Tensor
    block: Tensor
    kept_entries: Tensor
    kept_events: Tensor


class CompressiveBlock(nn.Module):
    """Pre-norm attention over entries and events, then a feed-forward layer."""

    def __init__(self, c: NetworkConfig) -> None:
        super().__init__()
        self.c = c
        self.norm_attention = nn.LayerNorm(c.d_model)
        self.query = nn.Linear(c.d_model, c.heads * c.d_head, bias=False)
        self.key_value = nn.Linear(c.d_model, 2 * c.d_head, bias=False)
        self.out = nn.Linear(c.heads * c.d_head, c.d_model, bias=False)
        self.decay = nn.Parameter(torch.full((c.heads,), -3.0)) if c.has_time else None
        self.entry_bias = nn.Parameter(torch.full((c.heads,), math.log(c.compression_ratio)))
        if c.compression == "convolution":
            self.weight = nn.Parameter(torch.full((c.compression_ratio, 2 * c.d_head), 1.0 / c.compression_ratio))
        elif c.compression == "attention":
            self.weight = nn.Parameter(torch.zeros(c.d_head))
        self.norm_ff = nn.LayerNorm(c.d_model)
        self.up = nn.Linear(c.d_model, c.d_ff)
        self.down = nn.Linear(c.d_ff, c.d_model)
        self.dropout = nn.Dropout(c.dropout)

    def forward(self, x: Tensor, places: Places, past: Tensor, entries: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Adds one chunk of events.

        Args:
            x: [B, T, d] inputs.
            places: Where everything stands.
            past: [B, W, 2 · d_head] keys and values of past events.
            entries: [B, m, 2 · d_head] keys and values of the entries.

        Returns:
            The outputs [B, T, d], and the events and the entries of the next state.
        """
        c, (batch, n, _) = self.c, x.shape
        y = self.norm_attention(x)
        query = self.query(y).view(batch, n, c.heads, c.d_head).transpose(1, 2)
        events = torch.cat([past, self.rounded(self.key_value(y))], dim=1)
        entries = torch.cat([entries, self.rounded(self.compressed(picked(events, places.block)))], dim=1)
        both = torch.cat([entries, events], dim=1)
        key, value = both[..., : c.d_head], both[..., c.d_head :]
        score = (
            rotate(query, *_rotary(places.query, c.d_head))
            @ rotate(key, *_rotary(places.position, c.d_head)).transpose(1, 2)[:, None]
            * c.d_head**-0.5
        )
        score = score + places.mask[:, None] + self.entry_bias[:, None, None] * places.is_entry
        if self.decay is not None:
            score = score - F.softplus(self.decay)[:, None, None] * places.elapsed[:, None]
        read = (score.softmax(dim=-1) @ value[:, None]).transpose(1, 2).reshape(batch, n, -1)
        x = x + self.dropout(self.out(read))
        x = x + self.dropout(self.down(F.gelu(self.up(self.norm_ff(x)))))
        return x, picked(events, places.kept_events), picked(entries, places.kept_entries)

    def compressed(self, events: Tensor) -> Tensor:
        """Returns the entries [B, n, 2 · d_head] of the events [B, n · c, 2 · d_head] of n blocks."""
        c = self.c
        blocks = events.view(events.shape[0], -1, c.compression_ratio, events.shape[2])
        entries: Tensor
        if c.compression == "convolution":
            entries = (blocks * self.weight).sum(dim=2)
        elif c.compression == "attention":
            share = (blocks[..., : c.d_head] @ self.weight).softmax(dim=-1)
            entries = (blocks * share[..., None]).sum(dim=2)
        else:
            entries = blocks.mean(dim=2)
        return entries

    def rounded(self, keys_values: Tensor) -> Tensor:
        """Returns keys and values after a round trip through the stored state."""
        return quantise(keys_values, stored_dtype(self.c))


class Compressive(StepEncoder):
    """[attention over entries and events, feed-forward] × layers."""

    remembers_trimmed: ClassVar[bool] = True

    def __init__(self, c: NetworkConfig) -> None:
        super().__init__(c)
        self.blocks = nn.ModuleList([CompressiveBlock(c) for _ in range(c.layers)])

    @classmethod
    def state_layout(cls, c: NetworkConfig) -> StateLayout:
        """Returns events and entries of every layer, their times, and the number of all events."""
        dtype, rows = stored_dtype(c), window_rows(c)
        arrays = (
            StateArray(EVENTS, dtype, (c.layers, rows, 2 * c.d_head), 1),
            StateArray(ENTRIES, dtype, (c.layers, c.memory_slots, 2 * c.d_head)),
            StateArray(ENTRY_MS, "int64", (c.memory_slots,)),
            StateArray(COUNT, "int64", (1,)),
            StateArray(TIME_MS, "int64", (rows,), 0),
        )
        return StateLayout(c.d_model, rows, arrays, remembers_trimmed=True)

    def forward(self, x: Tensor, events: Events, context: Tensor | None) -> Tensor:
        """Returns the hidden states [B, T, d]; see `Encoder.forward`."""
        batch = len(x)
        state, out = self.empty(x), []
        for start in range(0, x.shape[1], CHUNK):
            chunk = slice(start, start + CHUNK)
            n = x[:, chunk].shape[1]
            length = torch.full((batch,), n, dtype=torch.int64, device=x.device)
            blocks = -(-n // self.c.compression_ratio)
            h, state = self._add(x[:, chunk], events.time_ms[:, chunk], length, state, blocks)
            out.append(h)
        return torch.cat(out, dim=1)

    def step(self, x: Tensor, events: Events, state: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Adds events to states; see `Encoder.step`."""
        assert events.length is not None  # noqa: S101 - what `Encoder.step` promises
        # Each event completes at most one block. A bound that divides the number of events cannot be traced.
        h, after = self._add(x, events.time_ms, events.length, self.computed(x, state), x.shape[1])
        return h, self.stored(after)

    def _add(
        self, x: Tensor, time_ms: Tensor, length: Tensor, state: Mapping[str, Tensor], blocks: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Runs a chunk, which completes at most so many blocks, through all layers."""
        times = torch.cat([state[TIME_MS], time_ms], dim=1)
        places, entry_ms = self.places(times, time_ms, length, state, blocks)
        kept = []
        for layer, block in enumerate(self.blocks):
            x, *after = block(x, places, state[EVENTS][:, layer], state[ENTRIES][:, layer])
            kept.append(after)
        events, entries = (torch.stack(arrays, dim=1) for arrays in zip(*kept, strict=True))
        after_ms = {
            ENTRY_MS: entry_ms.gather(1, places.kept_entries),
            COUNT: state[COUNT] + length[:, None],
            TIME_MS: times.gather(1, places.kept_events),
        }
        return x, {EVENTS: events, ENTRIES: entries, **after_ms}

    def places(
        self, times: Tensor, time_ms: Tensor, length: Tensor, state: Mapping[str, Tensor], blocks: int
    ) -> tuple[Places, Tensor]:
        """Returns where everything stands, and the times [B, entries] of the entries.

        Events are counted from the start of the history: the slot s holds event first + s.

        Args:
            times: [B, W + T] times of past and new events.
            time_ms: [B, T] times of the new events.
            length: [B] new events of each row.
            state: The arrays.
            blocks: How many blocks the events may complete at most.
        """
        c, rows, n = self.c, window_rows(self.c), time_ms.shape[1]
        ratio, slots, device = c.compression_ratio, c.memory_slots, times.device
        count = state[COUNT]
        first = count - rows
        begun = self._left(count)  # [B, 1] blocks that have left the window before the chunk
        slot = torch.arange(rows + n, device=device)
        new = torch.arange(blocks, device=device)
        # Blocks that the chunk may complete; the events of those that it does not are never read.
        block = (begun[..., None] + new[None, :, None]) * ratio + torch.arange(ratio, device=device) - first[..., None]
        block = block.clamp(max=rows + n - 1).flatten(1)
        entry_ms = torch.cat([state[ENTRY_MS], times.gather(1, block)[:, ratio - 1 :: ratio]], dim=1)
        entry = begun - slots + torch.arange(entry_ms.shape[1], device=device)  # [B, m + new] numbers of the blocks
        query = torch.arange(rows, rows + n, device=device)
        left = self._left(first + query)[..., None]  # [B, T, 1]
        event = (first + slot)[:, None]
        seen = torch.cat(
            [
                (entry[:, None] >= 0) & (entry[:, None] < left) & (entry[:, None] >= left - slots),
                (event >= left * ratio) & (slot <= query[:, None])[None],
            ],
            dim=2,
        )
        all_ms = torch.cat([entry_ms, times], dim=1)
        middle = entry * ratio - first + (ratio - 1) / 2
        is_entry = torch.cat([torch.ones_like(entry[0]), torch.zeros_like(slot)]).to(torch.float32)
        after = self._left(count + length[:, None])
        return Places(
            position=torch.cat([middle, slot.to(middle.dtype).expand(times.shape[0], -1)], dim=1),
            query=query.to(torch.float32),
            mask=torch.where(seen, 0.0, MASK_SCORE),
            elapsed=log_seconds(time_ms[:, :, None] - all_ms[:, None]),
            is_entry=is_entry,
            block=block,
            kept_entries=after - begun + torch.arange(slots, device=device),
            kept_events=length[:, None] + torch.arange(rows, device=device),
        ), entry_ms

    def _left(self, event: Tensor) -> Tensor:
        """Returns how many blocks have left the window when an event comes, of the number of events before it."""
        return (event - self.c.window).clamp(min=0) // self.c.compression_ratio


def window_rows(c: NetworkConfig) -> int:
    """Returns how many past events an event may read: the window, and a block of which not all has left it."""
    return c.window + c.compression_ratio - 1


def _rotary(position: Tensor, d_head: int) -> tuple[Tensor, Tensor]:
    """Returns cosine and sine [..., n, d_head] of rotary positions (Su et al., 2021), halves layout."""
    frequency = ROPE_BASE ** (-torch.arange(0, d_head, 2, dtype=torch.float32, device=position.device) / d_head)
    angle = position[..., None] * frequency
    angle = torch.cat([angle, angle], dim=-1)
    return angle.cos(), angle.sin()
