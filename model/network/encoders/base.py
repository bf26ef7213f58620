"""What the network asks of an encoder: embedded events in, hidden states out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from model.network.config import NetworkConfig

Task = Literal["next", "masked"]

MASKED = -1e9  # added to the score of what must not be attended to


@dataclass(frozen=True)
class Events:
    """What else there is to know of the events [B, T] that are encoded, right-padded.

    `type` and `time_ms` are int64; `items` and `features` [B, T, d] are the two parts of the input: the embedded item,
    and type, gap and period. `length` [B] counts the events of each row where it is known. `asked` [B, T] marks the
    places whose event is hidden and looked for: for encoders of the task "masked" alone.
    """

    type: Tensor
    time_ms: Tensor
    items: Tensor
    features: Tensor
    length: Tensor | None = None
    asked: Tensor | None = None


class Encoder(nn.Module, ABC):
    """Turns events into hidden states.

    streams: a state can be carried from event to event; the export then has a graph with a state, and otherwise one
             that encodes whole histories
    task:    what it is trained for: the item that follows each event, which takes a causal encoder, or items that
             were hidden, with the last one as the one asked for
    reads_context: whether h depends on the user's features; the decoder is then not told of them
    """

    streams: ClassVar[bool] = False
    reads_context: ClassVar[bool] = False
    task: ClassVar[Task] = "next"

    @classmethod
    def receptive_field(cls, c: NetworkConfig) -> int:
        """How many of the newest events h may depend on."""
        return c.window

    @classmethod
    def cuts(cls, c: NetworkConfig, max_length: int) -> tuple[int, int]:
        """Length of the training chunks of long histories, and how many events before each cut they begin with.

        An encoder that re-encodes a history is never given more than its receptive field, in training as well.
        """
        longest = min(max_length, cls.receptive_field(c))
        return longest, longest // 2

    @abstractmethod
    def forward(self, x: Tensor, events: Events, context: Tensor | None) -> Tensor:
        """x [B, T, d] embedded events; context [B, d] of the request, or None → h [B, T, d].

        h[t] is the state after event t for the task "next", and of the hidden event t for "masked".
        """

    def last(self, x: Tensor, events: Events, context: Tensor | None) -> Tensor:
        """h [B, d] that the next item is asked with. Needs `events.length`."""
        assert events.length is not None  # noqa: S101 - said above
        rows = torch.arange(len(x), device=x.device)
        h: Tensor = self(x, events, context)[rows, events.length - 1]
        return h


def log_seconds(delta_ms: Tensor) -> Tensor:
    """log(1 + Δt in seconds). The difference is taken in int64: float32 epoch seconds resolve only 128 s."""
    return torch.log1p(delta_ms.clamp(min=0).to(torch.float32) / 1000.0)


def causal(n: int, x: Tensor) -> Tensor:
    """[n, n] additive mask: nothing reads what came later."""
    return torch.full((n, n), MASKED, device=x.device, dtype=x.dtype).triu(1)
