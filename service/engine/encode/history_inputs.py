"""The inputs of graphs over whole histories: of the encoder, and of its explainer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from service.artifact.array_types import Array, IntArray
from service.artifact.artifact import Artifact
from service.artifact.features import EventArrays
from service.artifact.graphs import graph_names as names
from service.engine.encode.padded_events import padded_events, padded_queries
from service.engine.onnx_session import Values
from service.engine.placement import Placement


class HistoryInputs:
    """Makes the inputs of one artefact. Safe to call from several threads."""

    def __init__(self, artifact: Artifact, placement: Placement, *, masked: bool) -> None:
        """Prepares the inputs.

        Args:
            artifact: The artefact.
            placement: Where its graphs run.
            masked: Whether they were trained on the task "masked" and predict a hidden event behind the history.
        """
        network = artifact.network
        self.longest = artifact.receptive_field
        self._placement, self._hidden_events = placement, int(masked)
        self._queries = artifact.vocabulary.query_buckets > 0
        self._slots, self._heads, self._window = network["n_slots"], network["heads"], network["window"]
        self._prefix = int(network["encoder"] == "prefix")
        self._fixed: dict[int, Values] = {}

    def of_rows(self, events: Sequence[EventArrays], contexts: Sequence[IntArray | None]) -> dict[str, Array]:
        """Returns the inputs that depend on the rows; those without a history have one event.

        Args:
            events: The histories, of 1 to `longest` events each.
            contexts: [slots] rows of the user's features for each, None where all are unknown.
        """
        batch = self._placement.rows(len(events))
        longest = max(len(e) for e in events) + self._hidden_events
        n = min(self._placement.rows(longest), self.longest + self._hidden_events)
        count = np.ones(batch, np.int64)
        count[: len(events)] = [len(e) for e in events]
        count += self._hidden_events
        padded = padded_events(events, batch, n)
        time_ms, position = padded[names.TIME_MS], np.arange(n)
        context = np.zeros((batch, self._slots), np.int64)
        for row, given in enumerate(contexts):
            if given is not None:
                context[row] = given
        feeds: dict[str, Array] = {
            **padded,
            names.PREVIOUS_MS: np.concatenate([time_ms[:, :1], time_ms[:, :-1]], axis=1),
            names.LAST_ROW: np.arange(batch) * n + count - 1,
            names.VALID: (position < count[:, None])[:, None],
            names.CONTEXT: context,
            names.ASKED: (position == count[:, None] - 1)[:, :, None],
        }
        if self._queries:
            feeds[names.QUERY] = padded_queries(events, batch, n)
        return feeds

    def of_length(self, n: int) -> Values:
        """Returns the inputs that depend on the length of the rows alone."""
        if n not in self._fixed:  # two threads may both make them: they are equal
            placement, slots = self._placement, n + self._prefix
            slot = np.arange(slots)
            distance = slot[:, None] - slot
            near = (distance >= 0) & ((distance <= self._window) | (slot < self._prefix))  # none is too far to see it
            self._fixed[n] = {
                names.POSITION: placement.put(np.arange(n)),
                names.NEAR: placement.put(near[None]),
                names.SLOT: placement.put(slot.reshape(1, 1, -1)),
                names.SCORES: placement.host(np.array([-1, self._heads, slots, slots], np.int64)),
                names.FOLDED: placement.host(np.array([-1, self._heads * slots, slots], np.int64)),
            }
        return self._fixed[n]
