"""The encoder's state after a history: everything needed to add an event, or to decode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from service.artifact.array_types import FloatArray, IntArray

STATE_DTYPES: tuple[np.dtype[np.generic], ...] = tuple(np.dtype(n) for n in ("float16", "float32", "int8"))


@dataclass(frozen=True, slots=True)
class StateShape:
    """The shape of a model's states. Models with different shapes cannot read each other's states.

    Attributes:
        layers: Attention layers; 0 if the model encodes whole histories.
        window: Events whose keys and values are kept.
        head_dim: Size of a key.
        hidden: Size of the hidden state.
        dtype: Type of keys and values: float16, float32 or int8.
    """

    layers: int
    window: int
    head_dim: int
    hidden: int
    dtype: str


@dataclass(frozen=True, slots=True)
class EncoderState:
    """Keys and values of the last events, right-aligned, and the hidden state.

    Attributes:
        kv: [layers, 2, w, d_k] keys and values in float16, float32 or int8; what lies before the last `n_valid` events
            means nothing.
        scale: [layers, 2, w] float32 scale of int8 keys and values; size 0 for other types.
        time_ms: [w] int64 times of the events.
        n_valid: Number of events in the state, at most w.
        h: [d] float32 hidden state after the last event.
    """

    kv: npt.NDArray[np.generic]
    scale: FloatArray
    time_ms: IntArray
    n_valid: int
    h: FloatArray

    @classmethod
    def of_hidden(cls, h: FloatArray) -> Self:
        """Makes the state of a model that encodes whole histories: no keys and values."""
        nothing = np.zeros((0, 2, 0, 0), np.float16)
        return cls(nothing, np.zeros(0, np.float32), np.zeros(0, np.int64), 0, h)

    @property
    def extends(self) -> bool:
        """Whether events can be added to the state."""
        return len(self.kv) > 0

    @property
    def shape(self) -> StateShape:
        """The shape of the state."""
        layers, _, window, head_dim = self.kv.shape
        return StateShape(layers, window, head_dim, len(self.h), self.kv.dtype.name)
