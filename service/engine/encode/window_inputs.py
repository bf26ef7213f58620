"""The encoder's inputs that follow from numbers of events alone: slots, windows, shapes."""

from __future__ import annotations

import numpy as np

from service.artifact.array_types import Array, IntArray
from service.artifact.graphs import graph_names as names
from service.engine.onnx_session import Values
from service.engine.placement import Placement


class Windows:
    """Makes these inputs of `encoder_interface.encoder`. Safe for several threads."""

    def __init__(self, layers: int, window: int, heads: int, placement: Placement) -> None:
        self._layers, self._window, self._heads, self._placement = layers, window, heads, placement
        self._fixed: dict[int, Values] = {}  # by number of events; a run has few, so there are few entries

    def fixed(self, events: int) -> Values:
        """Returns the inputs that depend on the number of new events alone."""
        values = self._fixed.get(events)
        if values is None:  # two threads may both make them: they are equal
            w, placement = self._window, self._placement
            slot = np.arange(w + events)
            distance = slot[w:, None] - slot
            values = self._fixed[events] = {
                names.NEAR: placement.put(((distance >= 0) & (distance <= w))[None]),
                names.SLOT: placement.put(slot.reshape(1, 1, -1)),
                names.SCORES: placement.host(np.array([-1, self._heads, events, w + events], np.int64)),
                names.FOLDED: placement.host(np.array([-1, self._heads * events, w + events], np.int64)),
            }
        return values

    def feeds(self, past_ms: IntArray, n_valid: IntArray, time_ms: IntArray, n_new: IntArray) -> dict[str, Array]:
        """Returns the inputs that depend on the rows.

        Args:
            past_ms: [B, w] times of each state's events, right-aligned.
            n_valid: [B] number of each state's events.
            time_ms: [B, T] times of the new events, right-padded.
            n_new: [B] number of new events.

        Returns:
            First valid slot, times of the previous events, and the slots of the next window.
        """
        w, layers = self._window, self._layers
        rows, events = time_ms.shape
        kept = n_new[:, None] + np.arange(w)
        matrices = np.arange(rows * layers * 2).reshape(rows, layers, 2, 1) * (w + events)
        return {
            names.FIRST_SLOT: (w - n_valid).reshape(-1, 1, 1),
            names.PREVIOUS_MS: previous_ms(past_ms, n_valid, time_ms),
            names.KEPT_SLOT: kept,
            names.KEPT_ROW: matrices + kept[:, None, None],
            names.LAST_ROW: np.arange(rows) * events + n_new - 1,
        }


class StepCounts:
    """Makes these inputs of `encoder_interface.step_encoder`."""

    def fixed(self, events: int) -> Values:  # noqa: ARG002 - as `Windows.fixed`
        """Returns nothing: the graph counts its events itself."""
        return {}

    def feeds(self, past_ms: IntArray, n_valid: IntArray, time_ms: IntArray, n_new: IntArray) -> dict[str, Array]:
        """Returns the inputs that depend on the rows; the arguments are those of `Windows.feeds`."""
        return {
            names.PREVIOUS_MS: previous_ms(past_ms, n_valid, time_ms),
            names.N_VALID: n_valid,
            names.N_NEW: n_new,
        }


def previous_ms(past_ms: IntArray, n_valid: IntArray, time_ms: IntArray) -> IntArray:
    """Returns [B, T] the time of the event before each; that of the event itself before the first of a history.

    The arguments are those of `Windows.feeds`.
    """
    previous = np.empty_like(time_ms)
    previous[:, 1:] = time_ms[:, :-1]
    previous[:, 0] = np.where(n_valid > 0, past_ms[:, -1], time_ms[:, 0])
    return previous
