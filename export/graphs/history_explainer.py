"""`explainer.onnx` for encoders without a state: what each event of a history has to do with h.

An encoder whose last state attends to all events (the LSTM's additive attention) outputs its attention. Of every other
one the graph is the encoder's own with one more input, the amount of each event: h with a little more and a little less
of an event gives the gradient of h by that event (`service.engine.encode.history_explainer`). So do encoders that read
the user's features.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from export.graphs import user_encoder
from export.graphs.backbone import Backbone
from export.graphs.event_inputs import EventGraph
from export.graphs.graph_writer import GraphDtype, graph_shape
from export.graphs.history_encoder import WRITERS, HistoryGraph
from export.graphs.user_encoder import UserGraph
from model.network.config import NetworkConfig
from service.artifact import graph_interface
from service.artifact import graph_names as names


def write_history_explainer(
    config: NetworkConfig, weights: Mapping[str, npt.NDArray[Any]], path: Path, dtype: GraphDtype
) -> None:
    """Writes `explainer.onnx`; `service.artifact.graph_interface.history_explainer` describes inputs and outputs."""
    graph = UserExplainerGraph if config.encoder in user_encoder.WRITERS else HistoryExplainerGraph
    graph(config, weights, dtype).write(path)


class InAmounts(EventGraph):
    """A graph with the input AMOUNT, which says how much of each event there is."""

    def items(self) -> ir.Value:
        """Returns [B, T, d] item embeddings, as much of each as there is of its event."""
        return self.in_amounts(super().items())

    def features(self) -> ir.Value:
        """Returns [B, T, d] type + gap + period, as much of each as there is of its event."""
        return self.in_amounts(super().features())

    def in_amounts(self, x: ir.Value) -> ir.Value:
        """Returns x [B, T, d] times the amounts; x itself where the graph takes none."""
        if names.AMOUNT not in self.inputs:
            return x
        amount = self.op.Unsqueeze(self.to_compute(self.inputs[names.AMOUNT]), self.ints(2))
        value: ir.Value = self.op.Mul(x, amount)
        return value


class HistoryExplainerGraph(InAmounts, HistoryGraph):
    """An encoder over whole histories that shows its attention, or takes an amount of each event."""

    def __init__(self, config: NetworkConfig, weights: Mapping[str, npt.NDArray[Any]], dtype: GraphDtype) -> None:
        interface = graph_interface.history_explainer(graph_shape(config, dtype))
        EventGraph.__init__(self, f"{config.encoder}_explainer", interface, config, weights, dtype)

    def attributes(self, rows: ir.Value) -> ir.Value:
        """Returns [B, T, A, d] embedded attributes, as much of each as there is of its event."""
        values = super().attributes(rows)
        if names.AMOUNT not in self.inputs:
            return values
        amount = self.op.Unsqueeze(self.to_compute(self.inputs[names.AMOUNT]), self.ints(2, 3))
        value: ir.Value = self.op.Mul(values, amount)
        return value

    def write(self, path: Path) -> None:
        """Writes the graph to `path`."""
        h = WRITERS[self.config.encoder](self)
        self.output(self.to_float(h), names.HIDDEN)
        self.save(path)

    def attended(self, weight: ir.Value) -> None:
        """Makes the attention [B, 1, T] of the last state an output."""
        self.output(self.op.Squeeze(weight, self.ints(1)), names.WEIGHT)


class UserExplainerGraph(InAmounts, UserGraph):
    """An encoder over whole histories and the user's features that takes an amount of each event."""

    def __init__(self, config: NetworkConfig, weights: Mapping[str, npt.NDArray[Any]], dtype: GraphDtype) -> None:
        interface = graph_interface.history_explainer(graph_shape(config, dtype))
        Backbone.__init__(self, f"{config.encoder}_explainer", interface, config, weights, dtype)
