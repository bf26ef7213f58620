"""Memory bank: slots beside the window that each event reads by attention and writes by gates.

    α_t = softmax_i(q_t · M_i / √d),  r_t = Σ_i α_ti M_i          read, before the event is written
    w_t = max(0, (1 + c) · g_t · softmax(K y_t) − c)               where, and how much, the event writes
    M_i ← (1 − w_ti) M_i + w_ti a_t                                M [m, d] for each user

q, a, g and the logits of the place are linear in y_t, the normed output of the last attention block. What is read goes
through a gate into the hidden state, then through a feed-forward layer.

Reading and writing are those of neural Turing machines (Graves et al., 2014, arXiv 1410.5401), with the erasure tied to
the writing. The place follows from the content of the event, by a learned address K_i of each slot, and not from what
the slot holds at present. So the recurrence is linear in M and has the parallel form of gated slot attention (Zhang et
al., 2024, arXiv 2409.07146): within a chunk every read is a product of matrices, whatever the chunk's length, and
chunks carry M alone.

g is a sigmoid. The cut c makes small writes none at all, as the stretched sigmoid of Louizos et al. (2018, arXiv
1712.01312) does. An event leaves exactly as they are the slots that it does not address, and all of them if it has
nothing to keep. So what was written is not worn away by the thousands of events after it.

The bank depends on all events there were, so it cannot be rebuilt from a log that was trimmed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from model.network.config import NetworkConfig
from model.network.encoders.base import MASK_SCORE, Events
from model.network.encoders.layers import picked
from model.network.encoders.memory_encoder import MemoryEncoder, earlier, window_arrays
from service.artifact.graphs.state_layout import StateArray, StateLayout

# Writes up to about this share of a slot are none at all.
CUT = 0.1
# How far apart the addresses of slots start. At 1 an event would write a little to every slot, less than the cut.
SHARPNESS = 8.0
# The largest w; below 1, so that its logarithm is finite.
LARGEST = 0.999

BANK = "bank"


@dataclass(frozen=True)
class Reads:
    """What the events of a chunk read, as shares of the whole; both are never negative.

    Attributes:
        slots: [B, T, heads, m] share of each slot; they add up to 1.
        events: [B, T, heads, T] share of each event of the chunk, by way of the slots. The rest up to 1 is what the
            slots held before the chunk.
    """

    slots: Tensor
    events: Tensor


class Bank(nn.Module):
    """Reads and writes the slots, then a feed-forward layer."""

    def __init__(self, c: NetworkConfig) -> None:
        super().__init__()
        self.heads, width = c.heads, c.heads * c.d_head
        self.norm = nn.LayerNorm(c.d_model)
        # What the slots hold before any event. A state holds the difference to it.
        self.start = nn.Parameter(torch.randn(c.bank_slots, width) * 0.1)
        self.query = nn.Linear(c.d_model, width, bias=False)
        self.content = nn.Linear(c.d_model, width, bias=False)
        self.place = nn.Linear(c.d_model, c.bank_slots)
        self.write = nn.Linear(c.d_model, 1)
        self.gate = nn.Linear(c.d_model, width)
        self.out = nn.Linear(width, c.d_model, bias=False)
        self.norm_ff = nn.LayerNorm(c.d_model)
        self.up = nn.Linear(c.d_model, c.d_ff)
        self.down = nn.Linear(c.d_ff, c.d_model)
        self.dropout = nn.Dropout(c.dropout)
        with torch.no_grad():
            self.place.weight.mul_(SHARPNESS)

    def forward(self, x: Tensor, length: Tensor, bank: Tensor) -> tuple[Tensor, Tensor, Reads]:
        """Adds one chunk of events.

        Args:
            x: [B, T, d] outputs of the attention blocks.
            length: [B] events of each row.
            bank: [B, m, heads · d_head] the slots before the chunk, less `start`.

        Returns:
            The outputs [B, T, d], the slots after the last event of each row, and what was read.
        """
        y = self.norm(x)
        read, bank, reads = self.mix(y, length, bank)
        x = x + self.dropout(self.out(torch.sigmoid(self.gate(y)) * read))
        return x + self.dropout(self.down(F.gelu(self.up(self.norm_ff(x))))), bank, reads

    def mix(self, y: Tensor, length: Tensor, bank: Tensor) -> tuple[Tensor, Tensor, Reads]:
        """Returns what the events read [B, T, heads · d_head], the next slots and the shares: the parallel form."""
        batch, n, _ = y.shape
        before, content = bank + self.start, self.content(y)
        query, split_content, split_before = (self._split(part) for part in (self.query(y), content, before))
        write = self.writes(y)
        is_event = (torch.arange(n, device=y.device)[None] < length[:, None]).to(y.dtype)
        write = write * is_event[..., None]  # padding writes nothing
        kept = torch.log1p(-write)  # [B, T, m]
        age = kept.cumsum(dim=1)
        # What slots hold, when event t reads them, of what they held before the chunk and of what event s wrote.
        of_before = torch.exp(age - kept)
        since = torch.where(earlier(y, 1)[..., None], (age - kept)[:, :, None] - age[:, None], MASK_SCORE)
        of_event = torch.exp(since) * write[:, None]  # [B, T, T, m]
        score = self._by_event(query @ split_before.transpose(2, 3)) * of_before[:, :, None]
        score = score + self._by_event(query @ split_content.transpose(2, 3)) @ of_event
        slots = (score * query.shape[-1] ** -0.5).softmax(dim=-1)  # [B, T, heads, m]
        events = slots @ of_event.transpose(2, 3)  # [B, T, heads, T]
        read = self._by_event(slots * of_before[:, :, None]) @ split_before + self._by_event(events) @ split_content
        last = age[:, -1:]  # padding changes nothing, so this is the age after the last event
        held = (torch.exp(last - age) * write).transpose(1, 2) @ content
        after = torch.exp(last).transpose(1, 2) * before + held
        return read.transpose(1, 2).reshape(batch, n, -1), after - self.start, Reads(slots, events)

    def writes(self, y: Tensor) -> Tensor:
        """Returns w [B, T, m] for the normed inputs [B, T, d]."""
        share: Tensor = torch.sigmoid(self.write(y)) * self.place(y).softmax(dim=-1)
        return LARGEST * ((1 + CUT) * share - CUT).clamp(min=0.0)

    def _split(self, x: Tensor) -> Tensor:
        """Returns [B, n, heads · d_head] as [B, heads, n, d_head]."""
        return x.view(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)

    @staticmethod
    def _by_event(x: Tensor) -> Tensor:
        """Returns [B, heads, T, n] as [B, T, heads, n], and the other way round."""
        return x.transpose(1, 2)


class MemoryBank(MemoryEncoder):
    """[attention in a window, feed-forward] × layers, then the bank."""

    def __init__(self, c: NetworkConfig) -> None:
        super().__init__(c)
        self.bank = Bank(c)

    @classmethod
    def state_layout(cls, c: NetworkConfig) -> StateLayout:
        """Returns the window and the slots. They are float32, for small writes would be lost in float16."""
        kv, time_ms = window_arrays(c)
        arrays = (kv, StateArray(BANK, "float32", (c.bank_slots, c.heads * c.d_head)), time_ms)
        return StateLayout(c.d_model, c.window, arrays, remembers_trimmed=True)

    def add(self, x: Tensor, events: Events, state: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Adds a chunk of events; see `MemoryEncoder.add`."""
        assert events.length is not None  # noqa: S101 - what `Encoder.step` promises
        x, after = self.attend(x, events, state)
        h, bank, _ = self.bank(x, events.length, state[BANK])
        return h, after | {BANK: bank}

    def read(self, x: Tensor, events: Events, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns what the last event of each row reads; see `Encoder.memory_read`.

        Returns:
            `events` [B, T], by way of the slots, and `slots` [B, m]: the means over the heads.
        """
        assert events.length is not None  # noqa: S101 - what `Encoder.memory_read` promises
        x, _ = self.attend(x, events, state)
        reads: Reads = self.bank(x, events.length, state[BANK])[2]
        last = events.length[:, None] - 1
        return {
            "events": picked(reads.events.mean(dim=2), last)[:, 0],
            "slots": picked(reads.slots.mean(dim=2), last)[:, 0],
        }
