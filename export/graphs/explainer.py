"""`explainer.onnx`: a whole history → how much each of its events contributed to h.

This is the encoder's computation over all events at once, with the attention rolled out over the layers (Abnar &
Zuidema, "Quantifying attention flow in transformers", 2020): heads are averaged, the residual connection counts as half
of a layer, and layers are multiplied. Only the last event's row is needed, so each layer is one product with a vector.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from export.graphs.backbone import Backbone
from export.graphs.event_inputs import MASKED
from export.graphs.graph_writer import FLOAT, GraphDtype, graph_shape
from model.network.config import NetworkConfig
from service.artifact.graphs import encoder_interface
from service.artifact.graphs import graph_names as names


def write_explainer(
    config: NetworkConfig, weights: Mapping[str, npt.NDArray[Any]], path: Path, dtype: GraphDtype
) -> None:
    """Writes `explainer.onnx`, whose interface is `service.artifact.graphs.encoder_interface.explainer`."""
    ExplainerGraph(config, weights, dtype).write(path)


class ExplainerGraph(Backbone):
    """The backbone over a whole history, which keeps the attention of every layer."""

    def __init__(self, config: NetworkConfig, weights: Mapping[str, npt.NDArray[Any]], dtype: GraphDtype) -> None:
        interface = encoder_interface.explainer(graph_shape(config, dtype))
        super().__init__("gpt4rec_explainer", interface, config, weights, dtype)
        self.attention: list[ir.Value] = []

    def write(self, path: Path) -> None:
        """Writes the graph to `path`."""
        op, c = self.op, self.config
        x = self.embed()
        mask = op.Unsqueeze(op.Where(self.inputs[names.NEAR], self.floats(0.0), self.floats(MASKED)), self.ints(1))
        elapsed = op.Unsqueeze(self.elapsed(self.inputs[names.TIME_MS]), self.ints(1)) if c.has_time else None
        rope = self.rope()
        for layer in range(c.layers):
            x, _, _ = self.block(x, layer, mask, elapsed, rope, rope)
        self.output(op.Squeeze(self.rollout(), self.ints(1)), names.WEIGHT)
        h = op.Gather(op.Reshape(x, self.ints(-1, c.d_model)), self.inputs[names.LAST_ROW], axis=0)
        self.output(self.cast(h, FLOAT), names.HIDDEN)
        self.save(path)

    def keys_values(self, y: ir.Value, layer: int) -> tuple[ir.Value, ir.Value | None]:
        """Returns the keys and values of the events: there is no past."""
        return self.new_keys_values(y, layer)

    def attended(self, weight: ir.Value) -> None:
        """Keeps a layer's attention for the rollout."""
        self.attention.append(weight)

    def rollout(self) -> ir.Value:
        """Returns [B, 1, T], the last event's row of ∏ (A + I) / 2, from the last layer to the first."""
        op = self.op
        row = self.inputs[names.LAST]
        for weight in reversed(self.attention):
            mean = op.Mul(op.ReduceSum(weight, self.ints(1), keepdims=0), self.floats(0.5 / self.config.heads))
            row = op.Add(op.MatMul(row, mean), op.Mul(row, self.floats(0.5)))
        return row
