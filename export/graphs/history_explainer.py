"""`explainer.onnx` for encoders without a state: what each event of a history has to do with h.

An encoder whose last state attends to all events (the LSTM's additive attention) outputs that attention. Transformers
over the whole history output theirs, rolled out over the layers (Abnar & Zuidema, 2020), where cross-attention counts
as half of what its layer reads. Of every other encoder the graph is the encoder's own with one more input, the amount
of each event: h with a little more and a little less of an event gives the gradient of h by that event
(`service.engine.encode.history_explainer`). So do encoders that read the user's features.
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
from export.graphs.graph_writer import FLOAT, GraphDtype, graph_shape
from export.graphs.history_encoder import WRITERS, HistoryGraph
from export.graphs.user_encoder import UserGraph
from model.network.config import NetworkConfig
from service.artifact.graphs import encoder_interface
from service.artifact.graphs import graph_names as names
from service.artifact.graphs.encoder_interface import ROLLED_OUT


def write_history_explainer(
    config: NetworkConfig, weights: Mapping[str, npt.NDArray[Any]], path: Path, dtype: GraphDtype
) -> None:
    """Writes `explainer.onnx`, whose interface is `service.artifact.graphs.encoder_interface.history_explainer`."""
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
        interface = encoder_interface.history_explainer(graph_shape(config, dtype))
        EventGraph.__init__(self, f"{config.encoder}_explainer", interface, config, weights, dtype)
        self._weight: dict[str, ir.Value] = {}

    def write(self, path: Path) -> None:
        """Writes the graph to `path`."""
        h = WRITERS[self.config.encoder](self)
        if self.config.encoder in ROLLED_OUT:
            self.attended(self.rollout())
        self.output(self.to_float(h), names.HIDDEN)
        self.save(path)

    def attended(self, weight: ir.Value) -> None:
        """Makes the attention [B, 1, T] of the last state an output."""
        self.output(self.op.Squeeze(weight, self.ints(1)), names.WEIGHT)

    def read(self, name: str, weight: ir.Value) -> None:
        """Keeps a layer's attention for the rollout."""
        self._weight[name] = weight

    def rollout(self) -> ir.Value:
        """Returns [B, 1, T], what of h comes from each event: the last event's row, from the last layer to the first.

        A decoder's row is on its own events and on those of the encoder that its cross-attention reads.
        """
        op, layers = self.op, range(self.config.layers)
        position = self.inputs[names.POSITION]
        last = op.Gather(self.rows_of(position), self.inputs[names.LAST_ROW], axis=0)
        row = op.Unsqueeze(self.cast(op.Equal(op.Unsqueeze(last, self.ints(1)), position), FLOAT), self.ints(1))
        beside: ir.Value | None = None
        for layer in reversed(layers):
            cross = f"encoder.blocks.{layer}.cross"
            if cross in self._weight:
                read = self.halved(row, cross)
                beside = read if beside is None else op.Add(beside, read)
                row = op.Mul(row, self.floats(0.5))
            row = op.Add(self.halved(row, f"encoder.blocks.{layer}.attention"), op.Mul(row, self.floats(0.5)))
        value: ir.Value = row
        if beside is not None:
            for layer in reversed(layers):
                read = self.halved(beside, f"encoder.reads.{layer}.attention")
                beside = op.Add(read, op.Mul(beside, self.floats(0.5)))
            value = op.Add(row, beside)
        return value

    def halved(self, row: ir.Value, name: str) -> ir.Value:
        """Returns [B, 1, T], half of what a row [B, 1, T] is on after a layer's attention, the mean of its heads."""
        op = self.op
        mean = op.ReduceSum(self._weight[name], self.ints(1), keepdims=0)
        value: ir.Value = op.MatMul(row, op.Mul(mean, self.floats(0.5 / self.config.heads)))
        return value


class UserExplainerGraph(InAmounts, UserGraph):
    """An encoder over whole histories and the user's features that takes an amount of each event."""

    def __init__(self, config: NetworkConfig, weights: Mapping[str, npt.NDArray[Any]], dtype: GraphDtype) -> None:
        interface = encoder_interface.history_explainer(graph_shape(config, dtype))
        Backbone.__init__(self, f"{config.encoder}_explainer", interface, config, weights, dtype)
