"""Which events of a history carried the attention: what an engine may be able to tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from export.features import EventArrays

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Explanation:
    """`weight` [n] float32 share of every event in the hidden state; with `start`, the start token's share, they add
    up to 1. `h` [d] is that state, as the encoder makes it."""

    weight: FloatArray
    start: float
    h: FloatArray


@runtime_checkable
class Explaining(Protocol):
    """An engine that can say why. `explains` is false where the artefact has no explainer."""

    @property
    def explains(self) -> bool: ...
    def explain(self, events: EventArrays, *, from_start: bool) -> Explanation: ...
