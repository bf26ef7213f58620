"""What each event of a history has to do with h, for encoders that encode histories whole.

Those with attention to all events show it. For the others it is the gradient: by how much h moves if there is a little
more or less of an event, as a share of what all events move ("gradient × input" of Shrikumar et al., 2016, by central
differences).
"""

from __future__ import annotations

import numpy as np

from service.artifact.array_types import FloatArray, IntArray
from service.artifact.artifact import Artifact
from service.artifact.features import EventArrays
from service.artifact.graphs import graph_names as names
from service.artifact.graphs.encoder_interface import ROLLED_OUT
from service.engine.encode.history_inputs import HistoryInputs
from service.engine.interface import ExplanationMethod
from service.engine.onnx_session import GraphSession, Values
from service.engine.placement import Placement

# How much of an event is added and taken away: small beside 1, large beside the rounding of a type.
STEP = {"float32": 0.02, "float16": 0.25, "int8": 0.25}
# Rows of one run, so that long histories take no more memory than a batch of requests.
ROWS_MAX = 64


class HistoryExplainer:
    """Explains hidden states of encoders without a state."""

    def __init__(self, artifact: Artifact, placement: Placement, graph: GraphSession) -> None:
        """Prepares the inputs of the artefact's explainer."""
        self._graph = graph
        self._inputs = HistoryInputs(artifact, placement, masked=names.ASKED in graph.inputs)
        self._rolled_out = artifact.network["encoder"] in ROLLED_OUT
        self._step = STEP["float16" if artifact.manifest["dtype"] == "float16" else "float32"]
        if names.CONTEXT in graph.inputs:  # the backbone, which rounds keys and values to the type of a state
            self._step = max(self._step, STEP[artifact.network["state_dtype"]])

    def explain(
        self, events: EventArrays, context: IntArray | None, values: Values
    ) -> tuple[FloatArray, FloatArray, ExplanationMethod]:
        """Returns the share [n] of each event, the hidden state [d], and how the shares were found.

        Args:
            events: The n events that the encoder reads, with the start token if it does.
            context: [slots] rows of the user's features, for encoders that read them; None: all unknown.
            values: Inputs on the device, with the item table among them.
        """
        n = len(events)
        if names.AMOUNT not in self._graph.inputs:
            feeds = self._inputs.of_rows([events], [context])
            out = self._graph.run(feeds, (values, self._inputs.of_length(feeds[names.ITEM].shape[1])))
            weight = out[names.WEIGHT][0, :n]  # less than 1 where an event behind the history asks for the next one
            return weight / weight.sum(), out[names.HIDDEN][0], "attention_rollout" if self._rolled_out else "attention"
        amounts, event = np.ones((2 * n + 1, n), np.float32), np.arange(n)
        amounts[1 + event, event] = 1 + self._step
        amounts[1 + n + event, event] = 1 - self._step
        runs = (amounts[first : first + ROWS_MAX] for first in range(0, len(amounts), ROWS_MAX))
        h = np.concatenate([self._hidden(events, context, rows, values) for rows in runs])
        moved = np.linalg.norm(h[1 : n + 1] - h[n + 1 : 2 * n + 1], axis=1)
        total = float(moved.sum())
        shares = moved / total if total > 0 else np.full(n, 1 / n)
        return shares.astype(np.float32), h[0], "gradient"

    def _hidden(self, events: EventArrays, context: IntArray | None, amounts: FloatArray, values: Values) -> FloatArray:
        """[rows, d] h with these amounts [rows, n] of the events."""
        rows = len(amounts)
        feeds = self._inputs.of_rows([events] * rows, [context] * rows)
        amount = np.ones(feeds[names.ITEM].shape, np.float32)
        amount[:rows, : len(events)] = amounts
        fixed = (values, self._inputs.of_length(len(amount[0])))
        h: FloatArray = self._graph.run({**feeds, names.AMOUNT: amount}, fixed)[names.HIDDEN][:rows]
        return h
