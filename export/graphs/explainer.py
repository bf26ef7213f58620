"""`explainer.onnx`: a whole history → what each of its events carried to h.

The encoder's computation over all events at once, with the attention rolled out over the layers (Abnar & Zuidema,
"Quantifying attention flow in transformers", 2020): heads are averaged, the residual connection counts as half of a
layer, and layers are multiplied. Only the last event's row is needed, so each layer is one product with a vector.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from export.graphs.backbone import Backbone
from export.graphs.event_inputs import MASKED
from export.graphs.graph_writer import BOOL, FLOAT, INT, GraphDtype
from model.network.config import NetworkConfig


def write_explainer(
    config: NetworkConfig, weights: Mapping[str, npt.NDArray[Any]], path: Path, dtype: GraphDtype
) -> None:
    """Inputs for B rows and T events, N items:

    the events    item / type / time_ms [B, T] right-padded, previous_ms [B, T]: the time of the event before
    the last one  last_row [B] = row · T + n − 1, last [B, 1, T] float32: 1 at the last event, else 0
    the shape     near [1, T, T] bool: what each event may attend to; slot [1, 1, T] = 0 … T − 1;
                  scores = [−1, heads, T, T], folded = [−1, heads · T, T]
    the catalogue item_table [N + 2, d]
    Outputs: weight [B, T] float32, rows add up to 1 and are 0 behind the last event; h [B, d] float32 after it.
    """
    ExplainerGraph(config, weights, dtype).write(path)


class ExplainerGraph(Backbone):
    def __init__(self, config: NetworkConfig, weights: Mapping[str, npt.NDArray[Any]], dtype: GraphDtype) -> None:
        super().__init__("gpt4rec_explainer", config, weights, dtype)
        self.item, self.type, self.time, self.previous = (
            self.input(name, INT, ["batch", "events"]) for name in ("item", "type", "time_ms", "previous_ms")
        )
        self.last_row = self.input("last_row", INT, ["batch"])
        self.last = self.input("last", FLOAT, ["batch", 1, "events"])
        self.near = self.input("near", BOOL, [1, "events", "events"])
        self.slot = self.input("slot", INT, [1, 1, "events"])
        self.scores, self.folded = (self.input(name, INT, [n]) for name, n in (("scores", 4), ("folded", 3)))
        self.table = self.input("item_table", self.compute, ["rows", config.d_model])
        self.attention: list[ir.Value] = []

    def write(self, path: Path) -> None:
        op, c = self.op, self.config
        x = self.embed()
        mask = op.Unsqueeze(op.Where(self.near, self.floats(0.0), self.floats(MASKED)), self.ints(1))
        elapsed = op.Unsqueeze(self.elapsed(self.time), self.ints(1)) if c.has_time else None
        rope = self.rope()
        for layer in range(c.layers):
            x, _, _ = self.block(x, layer, mask, elapsed, rope, rope)
        self.output(op.Squeeze(self.rollout(), self.ints(1)), "weight", FLOAT, ["batch", "events"])
        h = op.Gather(op.Reshape(x, self.ints(-1, c.d_model)), self.last_row, axis=0)
        self.output(op.Cast(h, to=int(FLOAT)), "h", FLOAT, ["batch", c.d_model])
        self.save(path)

    def keys_values(self, y: ir.Value, layer: int) -> tuple[ir.Value, ir.Value | None]:
        """Of the events: nothing is before them."""
        return self.new_keys_values(y, layer)

    def attended(self, weight: ir.Value) -> None:
        self.attention.append(weight)

    def rollout(self) -> ir.Value:
        """[B, 1, T] the last event's row of ∏ (A + I) / 2, from the last layer to the first."""
        op = self.op
        row = self.last
        for weight in reversed(self.attention):
            mean = op.Mul(op.ReduceSum(weight, self.ints(1), keepdims=0), self.floats(0.5 / self.config.heads))
            row = op.Add(op.MatMul(row, mean), op.Mul(row, self.floats(0.5)))
        return row
