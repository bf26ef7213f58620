"""What each event of a history has to do with h, for encoders that encode histories whole.

Some show their attention. For the others it is the gradient: by how much h moves if there is a little more or less of
an event, as a share of what all events move ("gradient × input" of Shrikumar et al., 2016, by central differences). All
differences of a history are the rows of one run.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from service.artifact import graph_names as names
from service.artifact.array_types import FloatArray
from service.artifact.features import EventArrays
from service.engine.encode.history_encoder import history_feeds
from service.engine.interface import ExplanationMethod
from service.engine.onnx_session import GraphSession, Values
from service.engine.placement import Placement

# How much of an event is added and taken away: small beside 1, large beside the rounding of the graph's type.
_STEP = {"float32": 0.02, "float16": 0.25}


class HistoryExplainer:
    """Explains hidden states of encoders without a state."""

    def __init__(self, placement: Placement, longest: int, *, masked: bool, queries: bool, compute: str) -> None:
        """Prepares the inputs.

        Args:
            placement: Where the graph runs.
            longest: Events that the encoder reads.
            masked: Whether the encoder predicts a hidden event behind the history.
            queries: Whether it reads queries.
            compute: Type of the graph's activations.
        """
        self._placement, self._masked, self._queries = placement, masked, queries
        self._longest, self._step = longest, _STEP[compute]

    def explain(
        self, graph: GraphSession, events: EventArrays, values: Values
    ) -> tuple[FloatArray, FloatArray, ExplanationMethod]:
        """Returns the share [n] of each event, the hidden state [d], and how the shares were found.

        Args:
            graph: The artefact's explainer.
            events: The n events that the encoder reads, with the start token if it does.
            values: Inputs on the device, with the item table among them.
        """
        n = len(events)
        if names.AMOUNT not in graph.inputs:
            out = graph.run(self._feeds([events]), (values,))
            return out[names.WEIGHT][0, :n], out[names.HIDDEN][0], "attention"
        rows = [events] * (2 * n + 1)
        feeds = self._feeds(rows)
        amount = np.ones(feeds[names.ITEM].shape, np.float32)
        event = np.arange(n)
        amount[1 + event, event] = 1 + self._step
        amount[1 + n + event, event] = 1 - self._step
        h = graph.run({**feeds, names.AMOUNT: amount}, (values,))[names.HIDDEN]
        moved = np.linalg.norm(h[1 : n + 1] - h[n + 1 : 2 * n + 1], axis=1)
        total = float(moved.sum())
        shares = moved / total if total > 0 else np.full(n, 1 / n)
        return shares.astype(np.float32), h[0], "gradient"

    def _feeds(self, events: list[EventArrays]) -> dict[str, Any]:
        batch, hidden = self._placement.rows(len(events)), int(self._masked)
        n = min(self._placement.rows(len(events[0]) + hidden), self._longest + hidden)
        feeds = history_feeds(events, batch, n, hidden_events=hidden, queries=self._queries)
        return {**feeds, names.POSITION: np.arange(n)}
