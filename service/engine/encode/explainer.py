"""How much each event of a history had to do with h: the artefact's extra graph, opened when it is first needed."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from service.artifact.array_types import IntArray
from service.artifact.artifact import Artifact
from service.artifact.features import EventArrays
from service.artifact.graphs import graph_names as names
from service.artifact.manifest import EXPLAINER
from service.common.errors import ModelError
from service.engine.encode.history_explainer import HistoryExplainer
from service.engine.encode.step_explainer import StepExplainer
from service.engine.interface import Explanation
from service.engine.onnx_session import GraphSession, Values
from service.engine.placement import Placement


class Explainer:
    """Explains hidden states. Safe to call from several threads."""

    def __init__(self, artifact: Artifact, placement: Placement) -> None:
        self._artifact, self._placement = artifact, placement
        self._lock = threading.Lock()
        self._graph: GraphSession | None = None

    @property
    def available(self) -> bool:
        """Whether the artefact has an explainer."""
        return self._artifact.explains

    def explain(
        self, events: EventArrays, values: Values, *, from_start: bool, context: IntArray | None = None
    ) -> Explanation:
        """Explains the hidden state of a history.

        Args:
            events: The history, oldest first.
            values: Inputs on the device, with the item table among them.
            from_start: Whether the start token goes before the history.
            context: [slots] rows of the user's features, for encoders that read them; None: all unknown.

        Raises:
            ModelError: The artefact has no explainer, or the graph does not run.
        """
        n = len(events)
        if not n:
            return Explanation(np.zeros(0, np.float32), 1.0, np.zeros(0, np.float32))
        if from_start:
            events = self._artifact.vocabulary.with_start(events)
        if not self._artifact.streaming:
            return self._of_whole(events, context, n, values, from_start=from_start)
        graph = self._opened()
        if names.N_NEW in graph.inputs:
            of_step = StepExplainer(self._artifact, self._placement, graph)
            return _finite(of_step.explain(events, values, started=from_start))
        out = graph.run(self._feeds(events), (values,))
        weight, h = out[names.WEIGHT][0, : len(events)], out[names.HIDDEN][0]
        return _finite(Explanation(weight[-n:].copy(), float(weight[0]) if from_start else 0.0, h.copy()))

    def _of_whole(
        self, events: EventArrays, context: IntArray | None, n: int, values: Values, *, from_start: bool
    ) -> Explanation:
        """Explains the state of an encoder without a state, which reads the newest events alone."""
        graph, artifact = self._opened(), self._artifact
        read = events.after(max(0, len(events) - artifact.receptive_field))
        weight, h, method = HistoryExplainer(artifact, self._placement, graph).explain(read, context, values)
        started = from_start and len(read) == n + 1
        start = float(weight[0]) if started else 0.0
        return _finite(Explanation(weight[int(started) :].copy(), start, h.copy(), method))

    def _opened(self) -> GraphSession:
        with self._lock:
            if self._graph is None:
                if not self.available:
                    raise ModelError("this artefact has no explainer; export the model again")
                self._graph = GraphSession(self._artifact.folder / EXPLAINER, self._placement)
            return self._graph

    def _feeds(self, events: EventArrays) -> dict[str, Any]:
        """One row, padded where the placement pads."""
        n, heads, window = len(events), self._artifact.network["heads"], self._artifact.network["window"]
        size = self._placement.rows(n)

        def row(values: IntArray) -> IntArray:
            return np.pad(values, (0, size - n))[None]

        slot = np.arange(size)
        distance = slot[:, None] - slot
        previous = np.concatenate([events.time_ms[:1], events.time_ms[:-1]])
        return {
            names.ITEM: row(events.item),
            names.TYPE: row(events.type),
            names.TIME_MS: row(events.time_ms),
            names.PREVIOUS_MS: row(previous),
            names.LAST_ROW: np.array([n - 1]),
            names.LAST: (slot == n - 1).astype(np.float32).reshape(1, 1, -1),
            names.NEAR: ((distance >= 0) & (distance <= window))[None],
            names.SLOT: slot.reshape(1, 1, -1),
            names.SCORES: self._placement.host(np.array([-1, heads, size, size], np.int64)),
            names.FOLDED: self._placement.host(np.array([-1, heads * size, size], np.int64)),
        }


def _finite(found: Explanation) -> Explanation:
    """Returns what was found.

    Raises:
        ModelError: It is not finite.
    """
    shown = [found.weight, found.h, *([] if found.memory is None else [found.memory.events])]
    if not all(np.isfinite(values).all() for values in shown):
        raise ModelError("the explainer's output is not finite")
    return found
