"""`encoder.onnx`: state + new events → state and h.

The computation is that of `model.network.gpt4rec.GPT4Rec.forward`, over the last `window` keys and values instead of
the whole history. The past is right-aligned: valid slots are w − n_valid … w − 1, new events follow from slot w on, and
the next window is one gather at n_new + 0…w−1, padded rows included. Keys are stored unrotated and are rotated by the
slot they are read in, so positions never grow. Everything that follows from the numbers of events alone is an input
(`service.engine.encode.window_inputs`).
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


def write_encoder(
    config: NetworkConfig, weights: Mapping[str, npt.NDArray[Any]], path: Path, dtype: GraphDtype
) -> None:
    """Writes `encoder.onnx`; `service.artifact.graphs.encoder_interface.encoder` describes its inputs and outputs."""
    EncoderGraph(config, weights, dtype).write(path)


class EncoderGraph(Backbone):
    """The streaming encoder: the backbone over the past of the state and the new events."""

    def __init__(self, config: NetworkConfig, weights: Mapping[str, npt.NDArray[Any]], dtype: GraphDtype) -> None:
        interface = encoder_interface.encoder(graph_shape(config, dtype))
        super().__init__("gpt4rec_encoder", interface, config, weights, dtype)

    def write(self, path: Path) -> None:
        """Writes the graph to `path`."""
        op, c = self.op, self.config
        all_time = op.Concat(self.inputs[names.PAST_TIME_MS], self.inputs[names.TIME_MS], axis=1)
        x = self.embed()
        not_empty = op.GreaterOrEqual(self.inputs[names.SLOT], self.inputs[names.FIRST_SLOT])
        allowed = op.And(self.inputs[names.NEAR], not_empty)
        mask = op.Unsqueeze(op.Where(allowed, self.floats(0.0), self.floats(MASKED)), self.ints(1))
        elapsed = op.Unsqueeze(self.elapsed(all_time), self.ints(1)) if c.has_time else None
        rope = self.rope()
        query_rope = [op.Slice(r, self.ints(c.window), self.ints(2**31), self.ints(0)) for r in rope]
        keys_values, scales = [], []
        for layer in range(c.layers):
            x, stored, scale = self.block(x, layer, mask, elapsed, rope, query_rope)
            keys_values.append(stored)
            scales.append(scale)
        self.write_state(keys_values, scales, all_time)
        h = op.Gather(op.Reshape(x, self.ints(-1, c.d_model)), self.inputs[names.LAST_ROW], axis=0)
        self.output(self.cast(h, FLOAT), names.HIDDEN)
        self.save(path)

    def keys_values(self, y: ir.Value, layer: int) -> tuple[ir.Value, ir.Value | None]:
        """Returns the keys and values of the past, followed by those of the new events."""
        op = self.op
        new, new_scale = self.new_keys_values(y, layer)
        past = op.Gather(self.inputs[names.KV], self.scalar(layer), axis=1)
        if new_scale is None:
            return op.Concat(past, new, axis=2), None
        past_scale = op.Gather(self.inputs[names.SCALE], self.scalar(layer), axis=1)
        return op.Concat(past, new, axis=2), op.Concat(past_scale, new_scale, axis=2)

    def attended(self, weight: ir.Value) -> None:
        """Does nothing: the encoder has no use for attention weights."""

    def write_state(self, keys_values: list[ir.Value], scales: list[ir.Value | None], all_time: ir.Value) -> None:
        """Outputs the next window: slots n_new … n_new + w − 1 of every layer."""
        op, kept_row = self.op, self.inputs[names.KEPT_ROW]
        stacked = op.Concat(*[op.Unsqueeze(kv, self.ints(1)) for kv in keys_values], axis=1)
        rows = op.Reshape(stacked, self.ints(-1, self.config.d_head))
        self.output(op.Gather(rows, kept_row, axis=0), names.NEXT_KV)
        if self.quantised:
            stacked = op.Concat(*[op.Unsqueeze(s, self.ints(1)) for s in scales], axis=1)
            self.output(op.Gather(op.Reshape(stacked, self.ints(-1)), kept_row, axis=0), names.NEXT_SCALE)
        self.output(op.GatherElements(all_time, self.inputs[names.KEPT_SLOT], axis=1), names.NEXT_TIME_MS)
