"""What the encoder graph reads that follows from numbers of events alone: slots, windows, shapes."""

from __future__ import annotations

import numpy as np

from service.artifact.array_types import Array, IntArray
from service.engine.encoder_state import StateShape
from service.engine.onnx_session import Placement, Values


class Windows:
    """Inputs of `export.graphs.encoder` for states of one shape. Safe to use from several threads."""

    def __init__(self, shape: StateShape, heads: int, at: Placement) -> None:
        self._shape, self._heads, self._at = shape, heads, at
        self._fixed: dict[int, Values] = {}  # a run has few events, so there are few of them

    def fixed(self, events: int) -> Values:
        """What depends on the number of new events only. Two threads may make it twice: it is the same."""
        values = self._fixed.get(events)
        if values is None:
            w, at = self._shape.window, self._at
            slot = np.arange(w + events)
            distance = slot[w:, None] - slot
            values = self._fixed[events] = {
                "near": at.put(((distance >= 0) & (distance <= w))[None]),
                "slot": at.put(slot.reshape(1, 1, -1)),
                "scores": at.host(np.array([-1, self._heads, events, w + events], np.int64)),
                "folded": at.host(np.array([-1, self._heads * events, w + events], np.int64)),
            }
        return values

    def feeds(self, past_ms: IntArray, n_valid: IntArray, time_ms: IntArray, n_new: IntArray) -> dict[str, Array]:
        """Where each row's past begins, what came before its events, and what of all slots is its next window."""
        s = self._shape
        rows, events = time_ms.shape
        previous = np.empty_like(time_ms)
        previous[:, 1:] = time_ms[:, :-1]
        previous[:, 0] = np.where(n_valid > 0, past_ms[:, -1], time_ms[:, 0])
        kept = n_new[:, None] + np.arange(s.window)
        matrices = np.arange(rows * s.layers * 2).reshape(rows, s.layers, 2, 1) * (s.window + events)
        return {
            "first_slot": (s.window - n_valid).reshape(-1, 1, 1),
            "previous_ms": previous,
            "kept_slot": kept,
            "kept_row": matrices + kept[:, None, None],
            "last_row": np.arange(rows) * events + n_new - 1,
        }
