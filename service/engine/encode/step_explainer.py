"""What each event of a history has to do with h, for encoders that are exported from their `step`.

As for encoders of whole histories it is the gradient by central differences (`history_explainer`). The newest events,
as many as the receptive field, have a share each. What came before them is in the state that they are added to, so
events before them have one share together: how far h moves with a little more or less of them all. So the cost does
not grow with the history as its square.

Encoders with a memory also say what the last event read from it. The graph outputs that in the same run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from service.artifact.array_types import Array, FloatArray, IntArray
from service.artifact.artifact import Artifact
from service.artifact.features import EventArrays
from service.artifact.graphs import graph_names as names
from service.artifact.graphs.state_layout import TIME_MS
from service.engine.encode.encoder import CHUNK
from service.engine.encode.history_explainer import ROWS_MAX, STEP
from service.engine.encode.padded_events import padded_events, padded_sessions
from service.engine.encode.window_inputs import StepCounts
from service.engine.interface import Explanation, MemoryRead
from service.engine.onnx_session import GraphSession, Values
from service.engine.placement import Placement

# How much is added and taken away where a state rounds keys and values to float16; all else is computed in float32.
_STEP_ROUNDED = 0.1
# The horizons of a hierarchy, the shortest first.
HORIZONS = ("hours", "days", "month")
# Events whose share in what was read from memory is shown. They are added at once, whose cost grows as the square.
READ_MAX = 512


@dataclass(frozen=True, slots=True)
class _States:
    """States of one history with different amounts of its events.

    Attributes:
        arrays: The arrays of the layout, [rows or more, …] each.
        n_valid: Events in their windows.
        h: [rows or more, d] hidden states.
    """

    arrays: Mapping[str, Array]
    n_valid: int
    h: FloatArray

    def of(self, rows: IntArray) -> _States:
        """Returns the states of these rows."""
        return _States({name: array[rows] for name, array in self.arrays.items()}, self.n_valid, self.h[rows])


class StepExplainer:
    """Explains hidden states of encoders that are exported from their `step`."""

    def __init__(self, artifact: Artifact, placement: Placement, graph: GraphSession) -> None:
        self._graph, self._placement = graph, placement
        self._layout, self._longest = artifact.state_layout, artifact.receptive_field
        self._counts, self._sessions = StepCounts(), artifact.vocabulary.reads_sessions
        rounds = any(array.dtype == "float16" for array in self._layout.arrays)
        self._step = _STEP_ROUNDED if rounds else STEP["float32"]

    def explain(self, events: EventArrays, values: Values, *, started: bool) -> Explanation:
        """Explains the hidden state of a history.

        Args:
            events: At least one event, oldest first, behind the start token if there is one.
            values: Inputs on the device, with the item table among them.
            started: Whether the first of them is the start token.
        """
        n = len(events)
        first = max(0, n - self._longest)
        before, newest = events.at(slice(0, first)), events.after(first)
        # Column 0 is the amount of all events before the newest; the others are those of the newest.
        columns = np.arange(n - first + 1)
        amounts = np.ones((2 * len(columns) + 1, len(columns)), np.float32)
        amounts[1 + columns, columns] += self._step
        amounts[1 + len(columns) + columns, columns] -= self._step
        of_before = np.unique(amounts[:, 0])
        begun = self._added(self._none(len(of_before)), before, np.repeat(of_before[:, None], first, axis=1), values)
        place = np.searchsorted(of_before, amounts[:, 0])
        parts = (slice(low, low + ROWS_MAX) for low in range(0, len(amounts), ROWS_MAX))
        h = np.concatenate([self._hidden(begun, place[part], newest, amounts[part, 1:], values) for part in parts])
        moved = np.linalg.norm(h[1 : len(columns) + 1] - h[len(columns) + 1 :], axis=1)
        total = float(moved.sum())
        shares = (moved / total if total > 0 else np.full(len(columns), 1 / len(columns))).astype(np.float32)
        shown = int(started and not first)
        start = float(shares[1]) if shown else 0.0
        memory = self._memory(events, values, started=started) if names.READ_EVENTS in self._graph.outputs else None
        return Explanation(shares[1 + shown :], start, h[0], "gradient", float(shares[0]), memory)

    def _memory(self, events: EventArrays, values: Values, *, started: bool) -> MemoryRead:
        """What the last event read from memory."""
        first = max(0, len(events) - READ_MAX)
        before, newest = events.at(slice(0, first)), events.after(first)
        begun = self._added(self._none(1), before, np.ones((1, first), np.float32), values)
        out = self._run(begun, newest, np.ones((1, len(newest)), np.float32), values)
        shown = slice(int(started and not first), len(newest))  # without the padding
        horizons = out[names.READ_HORIZONS][0].tolist() if names.READ_HORIZONS in out else None
        return MemoryRead(
            events=out[names.READ_EVENTS][0, shown],
            slots=out[names.READ_SLOTS][0] if names.READ_SLOTS in out else None,
            sessions=out[names.READ_SESSIONS][0, shown] if names.READ_SESSIONS in out else None,
            horizons=None if horizons is None else dict(zip(HORIZONS, horizons, strict=True)),
        )

    def _hidden(
        self, begun: _States, place: IntArray, events: EventArrays, amounts: FloatArray, values: Values
    ) -> FloatArray:
        """[rows, d] h after these amounts [rows, n] of the events, added to the states at `place` [rows]."""
        padded = np.zeros(self._placement.rows(len(place)), np.int64)
        padded[: len(place)] = place
        h: FloatArray = self._added(begun.of(padded), events, amounts, values).h[: len(place)]
        return h

    def _none(self, rows: int) -> _States:
        """The states before any event."""
        rows = self._placement.rows(rows)
        arrays = {a.name: np.zeros((rows, *a.shape), np.dtype(a.dtype)) for a in self._layout.arrays}
        return _States(arrays, 0, np.zeros((rows, self._layout.hidden), np.float32))

    def _added(self, states: _States, events: EventArrays, amounts: FloatArray, values: Values) -> _States:
        """The states after amounts [rows, n] of the events."""
        for low in range(0, len(events), CHUNK):
            chunk = slice(low, low + CHUNK)
            out = self._run(states, events.at(chunk), amounts[:, chunk], values)
            n_valid = min(self._layout.window, states.n_valid + len(events.at(chunk)))
            arrays = {array.name: out[names.next_output(array.name)] for array in self._layout.arrays}
            states = _States(arrays, n_valid, out[names.HIDDEN])
        return states

    def _run(self, states: _States, events: EventArrays, amounts: FloatArray, values: Values) -> dict[str, Array]:
        """One run of the graph, over rows that are padded as the states are."""
        rows, n = amounts.shape
        batch, length = len(states.h), self._placement.rows(n)
        feeds: dict[str, Array] = {**padded_events([events] * rows, batch, length)}
        if self._sessions:
            feeds[names.SESSION] = padded_sessions([events] * rows, batch, length)
        n_valid, n_new = np.full(batch, states.n_valid), np.full(batch, n)
        feeds |= self._counts.feeds(states.arrays[TIME_MS], n_valid, feeds[names.TIME_MS], n_new)
        feeds |= {names.past_input(name): array for name, array in states.arrays.items()}
        amount = np.ones((batch, length), np.float32)
        amount[:rows, :n] = amounts
        return self._graph.run({**feeds, names.AMOUNT: amount}, (values,))
