"""The network's backbone, op by op, shared by the encoder and the explainer.

They differ in where keys and values come from: the encoder has a past, the explainer reads the whole history at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from export.graphs.event_inputs import EventGraph
from export.graphs.graph_writer import DATA_TYPES, FLOAT, INT8, GraphDtype
from model.network.config import NetworkConfig
from model.network.encoders.streaming import ROPE_BASE
from service.artifact.graphs import graph_names as names
from service.artifact.graphs.graph_interface import Interface


class Backbone(EventGraph, ABC):
    """A graph of B rows of T events that attend to S slots."""

    def __init__(
        self,
        name: str,
        interface: Interface,
        config: NetworkConfig,
        weights: Mapping[str, npt.NDArray[Any]],
        dtype: GraphDtype,
    ) -> None:
        super().__init__(name, interface, config, weights, dtype)
        self.state_type = DATA_TYPES[config.state_dtype]
        self.quantised = config.state_dtype == "int8"

    @abstractmethod
    def keys_values(self, y: ir.Value, layer: int) -> tuple[ir.Value, ir.Value | None]:
        """Returns a layer's keys and values for all slots as stored, [B, 2, S, d_head], and their scales."""

    @abstractmethod
    def attended(self, weight: ir.Value) -> None:
        """Receives each layer's attention weights in turn: [B, heads, T, S] float32, whose rows add up to 1."""

    def new_keys_values(self, y: ir.Value, layer: int) -> tuple[ir.Value, ir.Value | None]:
        """Returns the keys and values of the new events, [B, 2, T, d_head], and their scales [B, 2, T]."""
        op, c = self.op, self.config
        both = self.linear(y, f"encoder.blocks.{layer}.key_value", bias=False)
        both = op.Reshape(both, self.ints(0, 0, 2, c.d_head))
        new = op.Transpose(both, perm=[0, 2, 1, 3])
        if not self.quantised:
            return self.cast(new, self.state_type), None
        new = self.to_float(new)
        largest = op.Max(op.ReduceMax(op.Abs(new), self.ints(3), keepdims=1), self.floats(1e-8))
        scale = op.Div(largest, self.floats(127.0))
        return self.cast(op.Round(op.Div(new, scale)), INT8), op.Squeeze(scale, self.ints(3))

    def elapsed(self, all_time: ir.Value) -> ir.Value:
        """Returns [B, T, S] log(1 + Δt) between every new event and every slot."""
        time = self.inputs[names.TIME_MS]
        delta = self.op.Sub(self.op.Unsqueeze(time, self.ints(2)), self.op.Unsqueeze(all_time, self.ints(1)))
        return self.log_seconds(delta)

    def rope(self) -> list[ir.Value]:
        """Returns cosine and sine of every slot's rotation, [S, d_head] each (RoPE, Su et al., 2021)."""
        op, d = self.op, self.config.d_head
        half = ROPE_BASE ** (-np.arange(0, d, 2, dtype=np.float32) / d)
        frequency = self.constant(np.concatenate([half, half]).astype(np.float32)[None], "rope_frequency")
        angle = op.Mul(self.cast(op.Reshape(self.inputs[names.SLOT], self.ints(-1, 1)), FLOAT), frequency)
        return [self.to_compute(op.Cos(angle)), self.to_compute(op.Sin(angle))]

    def rotate(self, x: ir.Value, rope: Sequence[ir.Value]) -> ir.Value:
        """Returns x ⊙ cos + turned(x) ⊙ sin, where turning is a product with a matrix of 0 and ±1."""
        op, half = self.op, self.config.d_head // 2
        turn = np.zeros((2 * half, 2 * half), self.numpy_compute)
        turn[np.arange(half) + half, np.arange(half)] = -1
        turn[np.arange(half), np.arange(half) + half] = 1
        cos, sin = rope
        value: ir.Value = op.Add(op.Mul(x, cos), op.Mul(op.MatMul(x, self.constant(turn, "turned")), sin))
        return value

    def block(
        self,
        x: ir.Value,
        layer: int,
        mask: ir.Value,
        elapsed: ir.Value | None,
        rope: Sequence[ir.Value],
        query_rope: Sequence[ir.Value],
    ) -> tuple[ir.Value, ir.Value, ir.Value | None]:
        """Writes one layer.

        Returns:
            The layer's output [B, T, d], keys and values of all slots [B, 2, S, d_head] as stored, and their scales.
        """
        op, name = self.op, f"encoder.blocks.{layer}"
        y = self.norm(x, f"{name}.norm_attention")
        stored, scale = self.keys_values(y, layer)
        read = self.dequantise(stored, scale)
        key, value = (op.Gather(read, self.scalar(i), axis=1) for i in (0, 1))
        x = op.Add(x, self.attend(y, layer, self.rotate(key, rope), value, mask, elapsed, query_rope))
        hidden = op.Gelu(self.linear(self.norm(x, f"{name}.norm_ff"), f"{name}.up"))
        return op.Add(x, self.linear(hidden, f"{name}.down")), stored, scale

    def dequantise(self, stored: ir.Value, scale: ir.Value | None) -> ir.Value:
        """Returns stored keys and values in the compute type."""
        if scale is None:
            return stored if self.state_type == self.compute else self.cast(stored, self.compute)
        full = self.op.Mul(self.cast(stored, FLOAT), self.op.Unsqueeze(scale, self.ints(3)))
        return self.to_compute(full)

    def attend(
        self,
        y: ir.Value,
        layer: int,
        key: ir.Value,
        value: ir.Value,
        mask: ir.Value,
        elapsed: ir.Value | None,
        rope: Sequence[ir.Value],
    ) -> ir.Value:
        """Returns the new events' attention over all slots; scores and softmax are in float32."""
        op, c = self.op, self.config
        query = self.linear(y, f"encoder.blocks.{layer}.query", bias=False)
        query = op.Reshape(query, self.ints(0, 0, c.heads, c.d_head))
        query = self.rotate(op.Transpose(query, perm=[0, 2, 1, 3]), rope)
        # There is one key/value head, so the query heads fold into rows of one matrix product.
        rows = op.Reshape(query, self.ints(0, -1, c.d_head))
        score = self.to_float(op.MatMul(rows, op.Transpose(key, perm=[0, 2, 1])))
        score = op.Mul(score, self.floats(c.d_head**-0.5))
        bias = mask
        if elapsed is not None:
            raw = self._weights[f"encoder.blocks.{layer}.decay"].astype(np.float64)
            rate = np.log1p(np.exp(raw)).astype(np.float32).reshape(1, -1, 1, 1)
            decay = op.Mul(elapsed, self.constant(rate, f"decay_{layer}"))
            bias = op.Sub(bias, decay)
        # [B, heads · T, S] and [B, heads, T, S] hold the same numbers; the bias has the second shape.
        score = op.Add(op.Reshape(score, self.inputs[names.SCORES]), bias)
        weight = op.Softmax(score, axis=-1)
        self.attended(weight)
        weight = op.Reshape(self.to_compute(weight), self.inputs[names.FOLDED])
        mixed = op.Reshape(op.MatMul(weight, value), self.ints(0, c.heads, -1, c.d_head))
        mixed = op.Reshape(op.Transpose(mixed, perm=[0, 2, 1, 3]), self.ints(0, 0, c.heads * c.d_head))
        return self.linear(mixed, f"encoder.blocks.{layer}.out", bias=False)
