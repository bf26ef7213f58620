"""`encoder.onnx` of the backbone that reads the user's features: a whole history and a context → h.

The features are a token before the history (`prefix`), or a term in every layer (`injected`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from export.graphs.backbone import Backbone
from export.graphs.event_inputs import MASKED
from export.graphs.graph_writer import FLOAT, GraphDtype, graph_shape
from export.graphs.request_context import ContextGraph
from model.network.config import NetworkConfig
from service.artifact.graphs import encoder_interface
from service.artifact.graphs import graph_names as names

_LATER_MS = 2**62  # later than any event: no time passes since the token


def write_user_encoder(
    config: NetworkConfig, weights: Mapping[str, npt.NDArray[Any]], path: Path, dtype: GraphDtype
) -> None:
    """Writes `encoder.onnx`, whose interface is `service.artifact.graphs.encoder_interface.history_encoder`.

    Raises:
        KeyError: No graph is written for this encoder.
    """
    UserGraph(config, weights, dtype).write(path)


class UserGraph(Backbone, ContextGraph):
    """The backbone over a whole history, with the features of its user."""

    def __init__(self, config: NetworkConfig, weights: Mapping[str, npt.NDArray[Any]], dtype: GraphDtype) -> None:
        interface = encoder_interface.history_encoder(graph_shape(config, dtype))
        super().__init__(f"{config.encoder}_encoder", interface, config, weights, dtype)

    def write(self, path: Path) -> None:
        """Writes the graph to `path`."""
        op, c = self.op, self.config
        user = self.linear(self.to_compute(self.context_vector(range(c.n_fields))), "describe", bias=False)
        x = WRITERS[c.encoder](self, op.Unsqueeze(user, self.ints(1)))
        h = op.Gather(op.Reshape(x, self.ints(-1, c.d_model)), self.inputs[names.LAST_ROW], axis=0)
        self.output(self.cast(h, FLOAT), names.HIDDEN)
        self.save(path)

    def injected(self, user: ir.Value) -> ir.Value:
        """Returns [B, T, d]: α · u is added to the input of each layer."""
        op, x, alpha = self.op, self.embed(), self._weights["encoder.alpha"]
        elapsed = self._elapsed(self.inputs[names.TIME_MS], self.inputs[names.TIME_MS])
        mask, rope = self._mask(), self.rope()
        for layer in range(self.config.layers):
            scale = self.constant(alpha[layer : layer + 1].astype(self.numpy_compute), f"encoder.alpha.{layer}")
            x, _, _ = self.block(op.Add(x, op.Mul(user, scale)), layer, mask, elapsed, rope, rope)
        return x

    def prefix(self, user: ir.Value) -> ir.Value:
        """Returns [B, T, d]: u is a token before the first event, at the time of that event, as a query."""
        op, time = self.op, self.inputs[names.TIME_MS]
        first = op.Slice(time, self.ints(0), self.ints(1), self.ints(1))
        later = op.Add(first, self.constant(np.array([_LATER_MS], np.int64), "later"))
        elapsed = self._elapsed(op.Concat(first, time, axis=1), op.Concat(later, time, axis=1))
        x, mask, rope = op.Concat(user, self.embed(), axis=1), self._mask(), self.rope()
        for layer in range(self.config.layers):
            x, _, _ = self.block(x, layer, mask, elapsed, rope, rope)
        events: ir.Value = op.Slice(x, self.ints(1), self.ints(2**31), self.ints(1))
        return events

    def keys_values(self, y: ir.Value, layer: int) -> tuple[ir.Value, ir.Value | None]:
        """Returns the keys and values of the slots: there is no past."""
        return self.new_keys_values(y, layer)

    def attended(self, weight: ir.Value) -> None:
        """Keeps nothing: these encoders have no explainer."""

    def _mask(self) -> ir.Value:
        op = self.op
        near = op.Where(self.inputs[names.NEAR], self.floats(0.0), self.floats(MASKED))
        mask: ir.Value = op.Unsqueeze(near, self.ints(1))
        return mask

    def _elapsed(self, time: ir.Value, earlier: ir.Value) -> ir.Value | None:
        """Returns [B, 1, S, S] log(1 + Δt) from each slot to each earlier one; None for data without times."""
        op = self.op
        if not self.config.has_time:
            return None
        delta = op.Sub(op.Unsqueeze(time, self.ints(2)), op.Unsqueeze(earlier, self.ints(1)))
        elapsed: ir.Value = op.Unsqueeze(self.log_seconds(delta), self.ints(1))
        return elapsed


WRITERS: dict[str, Callable[[UserGraph, ir.Value], ir.Value]] = {
    "prefix": UserGraph.prefix,
    "injected": UserGraph.injected,
}
