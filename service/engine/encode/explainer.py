"""Which events of a history carried the attention: the artefact's extra graph, opened when it is first asked."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from service.artifact.artifact import EXPLAINER, Artifact
from service.artifact.features import EventArrays
from service.common.errors import ModelError
from service.engine.interface import Explanation
from service.engine.onnx_session import GraphSession, Placement, Values


class Explainer:
    """Safe to call from several threads."""

    def __init__(self, artifact: Artifact, at: Placement) -> None:
        self._artifact, self._at = artifact, at
        self._lock = threading.Lock()
        self._graph: GraphSession | None = None

    @property
    def there(self) -> bool:
        return self._artifact.explains

    def explain(self, events: EventArrays, values: Values, *, from_start: bool) -> Explanation:
        """Of a history, oldest first; `values` hold the item table, `from_start` puts the start token before it.

        Raises ModelError where the artefact has no explainer, or the graph does not run.
        """
        n = len(events)
        if not n:
            return Explanation(np.zeros(0, np.float32), 1.0, np.zeros(0, np.float32))
        if from_start:
            events = self._artifact.vocabulary.with_start(events)
        out = self._opened().run(self._feeds(events), (values,))
        weight = out["weight"][0, : len(events)]
        if not (np.isfinite(weight).all() and np.isfinite(out["h"]).all()):
            raise ModelError("the explainer's output is not finite")
        return Explanation(weight[-n:].copy(), float(weight[0]) if from_start else 0.0, out["h"][0].copy())

    def _opened(self) -> GraphSession:
        with self._lock:
            if self._graph is None:
                if not self.there:
                    raise ModelError("this artefact has no explainer; export the model again")
                self._graph = GraphSession(self._artifact.folder / EXPLAINER, self._at)
            return self._graph

    def _feeds(self, events: EventArrays) -> dict[str, Any]:
        """One row, padded where the device pads."""
        n, heads, window = len(events), self._artifact.network["heads"], self._artifact.network["window"]
        size = self._at.rows(n)

        def row(values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
            return np.pad(values, (0, size - n))[None]

        slot = np.arange(size)
        distance = slot[:, None] - slot
        previous = np.concatenate([events.time_ms[:1], events.time_ms[:-1]])
        return {
            "item": row(events.item),
            "type": row(events.type),
            "time_ms": row(events.time_ms),
            "previous_ms": row(previous),
            "last_row": np.array([n - 1]),
            "last": (slot == n - 1).astype(np.float32).reshape(1, 1, -1),
            "near": ((distance >= 0) & (distance <= window))[None],
            "slot": slot.reshape(1, 1, -1),
            "scores": self._at.host(np.array([-1, heads, size, size], np.int64)),
            "folded": self._at.host(np.array([-1, heads * size, size], np.int64)),
        }
