"""The encoder's state after a history: all that is needed to add an event, or to decode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

STATE_DTYPES: tuple[np.dtype[np.generic], ...] = tuple(np.dtype(n) for n in ("float16", "float32", "int8"))


@dataclass(frozen=True, slots=True)
class StateShape:
    """What a model's states look like; two models that differ in it cannot read each other's."""

    layers: int
    window: int
    head_dim: int
    hidden: int
    dtype: str  # of keys and values: float16, float32 or int8


@dataclass(frozen=True, slots=True)
class EncoderState:
    """Keys and values of the last `n_valid` ≤ w events, right-aligned; the rows before them mean nothing.

    `kv` [layers, 2, w, d_k] in float16, float32 or int8; `scale` float32 [layers, 2, w] for int8 (size 0
    otherwise); `time_ms` int64 [w]; `h` float32 [d], the hidden state after the last event.
    """

    kv: npt.NDArray[np.generic]
    scale: npt.NDArray[np.float32]
    time_ms: npt.NDArray[np.int64]
    n_valid: int
    h: npt.NDArray[np.float32]

    @classmethod
    def of_hidden(cls, h: npt.NDArray[np.float32]) -> Self:
        """The state of a model that encodes whole histories: no keys and values."""
        nothing = np.zeros((0, 2, 0, 0), np.float16)
        return cls(nothing, np.zeros(0, np.float32), np.zeros(0, np.int64), 0, h)

    @property
    def extends(self) -> bool:
        """Whether an event can be added to it."""
        return len(self.kv) > 0

    @property
    def shape(self) -> StateShape:
        layers, _, window, head_dim = self.kv.shape
        return StateShape(layers, window, head_dim, len(self.h), self.kv.dtype.name)
