"""The interface between the network and an encoder: embedded events in, hidden states out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from model.network.config import NetworkConfig
from service.artifact.graphs.state_layout import StateLayout

Task = Literal["next", "masked"]

MASK_SCORE = -1e9  # added to attention scores of positions that must not be attended to


@dataclass(frozen=True)
class Events:
    """The events [B, T] that are encoded, right-padded, besides their summed embeddings.

    Attributes:
        type: [B, T] int64 event types.
        time_ms: [B, T] int64 milliseconds since the epoch.
        items: [B, T, d] first part of the input: the embedded items.
        features: [B, T, d] second part of the input: type, gap and period.
        length: [B] events of each row; None where the encoder does not need it.
        masked: [B, T] bool, positions whose event is masked and to be predicted; only for the task "masked".
        attributes: [B, T, slots, d] embedded attributes of the items; None where the network reads none.
        has_attribute: [B, T, slots] bool, whether the item has one there.
        session: [B, T] int64 numbers of the events' sessions, 0 where unknown; None where none is read.
        previous_ms: [B, T] int64 time of the event before each, that of the event itself for the first of a history;
            given to `Encoder.step`.
        n_valid: [B] int64 events in the window of the state; given to `Encoder.step`.
    """

    type: Tensor
    time_ms: Tensor
    items: Tensor
    features: Tensor
    length: Tensor | None = None
    masked: Tensor | None = None
    attributes: Tensor | None = None
    has_attribute: Tensor | None = None
    session: Tensor | None = None
    previous_ms: Tensor | None = None
    n_valid: Tensor | None = None


class Encoder(nn.Module, ABC):
    """Turns events into hidden states.

    Attributes:
        streams: Whether a state can be carried from event to event. If so, the export writes a graph with a state;
            otherwise it writes one that encodes whole histories.
        remembers_trimmed: Whether a state depends on events older than the receptive field, which the log may no longer
            keep. Such a state is rebuilt from a checkpoint (`service.history.trim_checkpoint`). Where it follows from
            the settings, `state_layout` alone says so.
        reads_context: Whether h depends on the user's features. The decoder then leaves them out.
        shows_memory: Whether `memory_read` says what the last event read from a memory.
        task: What the encoder is trained for. "next" predicts the item after each event and needs a causal encoder.
            "masked" predicts masked items; at inference the item after the history is the masked one.
    """

    streams: ClassVar[bool] = False
    remembers_trimmed: ClassVar[bool] = False
    reads_context: ClassVar[bool] = False
    shows_memory: ClassVar[bool] = False
    task: ClassVar[Task] = "next"

    @classmethod
    def receptive_field(cls, c: NetworkConfig) -> int:
        """Returns how many of the newest events h may depend on.

        Of an encoder that remembers trimmed events: how many a log keeps at least.
        """
        return c.window

    @classmethod
    def cuts(cls, c: NetworkConfig, max_length: int) -> tuple[int, int]:
        """Returns how training cuts long histories: the length of a chunk, and the context events at its start.

        An encoder that re-encodes a history never reads more than its receptive field, in training as well.
        """
        longest = min(max_length, cls.receptive_field(c))
        return longest, longest // 2

    @abstractmethod
    def forward(self, x: Tensor, events: Events, context: Tensor | None) -> Tensor:
        """Encodes every position.

        Args:
            x: [B, T, d] embedded events, the sum of `events.items` and `events.features` after dropout.
            events: The same events in parts.
            context: [B, d] embedded user features; None where there are none.

        Returns:
            [B, T, d] hidden states. h[t] is the state after event t for the task "next", and the state of the masked
            event t for the task "masked".
        """

    @classmethod
    def state_layout(cls, c: NetworkConfig) -> StateLayout:
        """Returns the arrays of a state; none unless the encoder streams."""
        return StateLayout(c.d_model)

    def step(self, x: Tensor, events: Events, state: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Adds events to states. `export.graphs.step_encoder` makes the graph that serves of it.

        Adding events in any number of steps gives what `forward` gives of all of them.

        Args:
            x: [B, T, d] embedded events, right-padded.
            events: The same events in parts, with `length`, `previous_ms` and `n_valid`.
            state: The arrays of the layout by name, [B, …] each; zeros where there is no event before.

        Returns:
            [B, T, d] hidden states, and the arrays after the last event of each row.

        Raises:
            NotImplementedError: The encoder does not stream, or its graph is written by hand.
        """
        raise NotImplementedError(f"{type(self).__name__} has no step")

    def memory_read(self, x: Tensor, events: Events, state: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Returns what the last event of each row read from memory, for explanations.

        Args:
            x: [B, T, d] embedded events, right-padded.
            events: The same events in parts, with `length`; after a state also with `previous_ms` and `n_valid`.
            state: The arrays before the events, as `step` gets them; None: the events are whole histories.

        Returns:
            `events` [B, T], the share of each event in it. They add up to at most 1; the rest is what the memory held
            before the events. Whatever else the encoder can say has the names that its method gives.

        Raises:
            NotImplementedError: The encoder has no memory that can be shown.
        """
        raise NotImplementedError(f"{type(self).__name__} does not show what it reads")

    def last(self, x: Tensor, events: Events, context: Tensor | None) -> Tensor:
        """Returns the hidden state [B, d] that predicts the item after each history. Needs `events.length`."""
        assert events.length is not None  # noqa: S101 - documented above
        rows = torch.arange(len(x), device=x.device)
        h: Tensor = self(x, events, context)[rows, events.length - 1]
        return h


def log_seconds(delta_ms: Tensor) -> Tensor:
    """Returns log(1 + Δt in seconds) of int64 milliseconds.

    Take the difference of two times in int64 before the call: float32 epoch seconds resolve only 128 s.
    """
    return torch.log1p(delta_ms.clamp(min=0).to(torch.float32) / 1000.0)


def causal(n: int, x: Tensor) -> Tensor:
    """Returns an additive mask [n, n] that hides later positions, in the dtype and on the device of x."""
    return torch.full((n, n), MASK_SCORE, device=x.device, dtype=x.dtype).triu(1)


class StepEncoder(Encoder):
    """An encoder with a state whose graph is exported from its `step`."""

    streams: ClassVar[bool] = True

    def __init__(self, c: NetworkConfig) -> None:
        super().__init__()
        self.c = c

    @classmethod
    def receptive_field(cls, c: NetworkConfig) -> int:
        """Returns the length of the log, which is that of the default encoder; a memory may reach beyond it."""
        return c.layers * c.window + 2

    @classmethod
    def cuts(cls, c: NetworkConfig, max_length: int) -> tuple[int, int]:
        """Returns `max_length`, and at most a window of context: each chunk begins with an empty state."""
        return max_length, min(c.window, max_length // 2)

    def empty(self, x: Tensor) -> dict[str, Tensor]:
        """Returns the states before any event, floats of the type and on the device of x [B, T, d]."""
        return {
            array.name: torch.zeros(
                (len(x), *array.shape), dtype=torch.int64 if array.dtype == "int64" else x.dtype, device=x.device
            )
            for array in self.state_layout(self.c).arrays
        }

    def computed(self, x: Tensor, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns stored arrays with floats of the type of x."""
        return {
            array.name: state[array.name] if array.dtype == "int64" else state[array.name].to(x.dtype)
            for array in self.state_layout(self.c).arrays
        }

    def stored(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns arrays in the types in which they are stored."""
        return {
            array.name: state[array.name].to(getattr(torch, array.dtype)) for array in self.state_layout(self.c).arrays
        }
