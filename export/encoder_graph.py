"""`encoder.onnx`: state + new events → state and h.

The same computation as `model.network.GPT4Rec.forward`, over the last `window` keys and values instead of the whole
history. The past is right-aligned: valid slots are w − n_valid … w − 1, new events follow from slot w on, and the next
window is one gather at n_new + 0…w−1, padded rows included. Keys are stored unrotated and rotated by the slot they are
read in, so positions never grow.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from export.graph import FLOAT, HALF, INT, INT8, GraphDtype, GraphWriter
from model.network import PERIODS_MS, ROPE_BASE, NetworkConfig

MASKED = -30_000.0  # a float16 number, and far below any score

STATE_TYPES = {"float32": FLOAT, "float16": HALF, "int8": INT8}


def write_encoder(
    config: NetworkConfig, weights: Mapping[str, npt.NDArray[Any]], path: Path, dtype: GraphDtype
) -> None:
    """Inputs (B rows, T new events, L layers, w window, N items):

    kv [B, L, 2, w, d_head] in the state's type, scale [B, L, 2, w] float32 (int8 states only), past_time_ms [B, w],
    n_valid [B], item / type / time_ms [B, T] right-padded, n_new [B] ≥ 1, item_table [N + 2, d].
    Outputs: next_kv, next_scale, next_time_ms, next_n_valid, h [B, d] float32 after the last new event.
    """
    EncoderGraph(config, weights, dtype).write(path)


class EncoderGraph(GraphWriter):
    def __init__(self, config: NetworkConfig, weights: Mapping[str, npt.NDArray[Any]], dtype: GraphDtype) -> None:
        super().__init__("gpt4rec_encoder", weights, dtype)
        c = self.config = config
        self.state_type = STATE_TYPES[c.state_dtype]
        self.quantised = c.state_dtype == "int8"
        state_shape: list[int | str] = ["batch", c.layers, 2, c.window, c.d_head]
        self.kv = self.input("kv", self.state_type, state_shape)
        if self.quantised:
            self.scale = self.input("scale", FLOAT, state_shape[:-1])
        self.past_time = self.input("past_time_ms", INT, ["batch", c.window])
        self.n_valid = self.input("n_valid", INT, ["batch"])
        self.item = self.input("item", INT, ["batch", "events"])
        self.type = self.input("type", INT, ["batch", "events"])
        self.time = self.input("time_ms", INT, ["batch", "events"])
        self.n_new = self.input("n_new", INT, ["batch"])
        self.table = self.input("item_table", self.compute, ["rows", c.d_model])

    def write(self, path: Path) -> None:
        op, c = self.op, self.config
        n_events = op.Squeeze(op.Shape(self.item, start=1, end=2))
        new_slot = op.Range(self.scalar(0), n_events, self.scalar(1))
        slot = op.Range(self.scalar(0), op.Add(n_events, self.scalar(c.window)), self.scalar(1))
        all_time = op.Concat(self.past_time, self.time, axis=1)
        x = self.embed()
        mask = self.mask(new_slot, slot)
        elapsed = self.elapsed(all_time) if c.has_time else None
        rope = self.rope(slot)
        keys_values, scales = [], []
        for layer in range(c.layers):
            x, stored, scale = self.block(x, layer, mask, elapsed, rope)
            keys_values.append(stored)
            scales.append(scale)
        self.write_state(keys_values, scales, all_time)
        last = op.Unsqueeze(op.Sub(self.n_new, self.ints(1)), self.ints(1, 2))
        zeros = self.constant(np.zeros(c.d_model, np.int64), "zeros_d_model")
        h = op.Squeeze(op.GatherElements(x, op.Add(last, zeros), axis=1), self.ints(1))
        self.output(op.Cast(h, to=int(FLOAT)), "h", FLOAT, ["batch", c.d_model])
        self.save(path)

    def embed(self) -> ir.Value:
        """Item + type + gap + period; the start token is its item row alone."""
        op, c = self.op, self.config
        x = op.Gather(self.weight("event_type.weight"), self.type, axis=0)
        if c.has_time:
            x = op.Add(x, op.Add(self.gap(), self.period()))
        is_event = op.Less(self.type, self.ints(c.n_types))
        x = op.Mul(x, op.Unsqueeze(self.cast(is_event, self.compute), self.ints(2)))
        value: ir.Value = op.Add(op.Gather(self.table, self.item, axis=0), x)
        return value

    def gap(self) -> ir.Value:
        """Embedded log(1 + gap) to the event before; 0 for the first event of all."""
        op, w = self.op, self.config.window
        newest = op.Slice(self.past_time, self.ints(w - 1), self.ints(w), self.ints(1))
        first = op.Slice(self.time, self.ints(0), self.ints(1), self.ints(1))
        has_past = op.Unsqueeze(op.Greater(self.n_valid, self.ints(0)), self.ints(1))
        before = op.Where(has_past, newest, first)
        previous = op.Concat(before, op.Slice(self.time, self.ints(0), self.ints(-1), self.ints(1)), axis=1)
        log_gap = self.log_seconds(op.Sub(self.time, previous))
        scaled = op.Unsqueeze(op.Mul(log_gap, self.floats(0.1)), self.ints(2))
        return self.linear(self.to_compute(scaled), "gap", bias=False)

    def period(self) -> ir.Value:
        op = self.op
        waves = []
        for period in PERIODS_MS:
            phase = op.Mul(self.cast(op.Mod(self.time, self.ints(period)), FLOAT), self.floats(2 * np.pi / period))
            waves += [op.Unsqueeze(f(phase), self.ints(2)) for f in (op.Sin, op.Cos)]
        return self.linear(self.to_compute(op.Concat(*waves, axis=2)), "period", bias=False)

    def mask(self, new_slot: ir.Value, slot: ir.Value) -> ir.Value:
        """[B, T, S] float32: 0 where query t may read slot s, else a large negative number."""
        op, w = self.op, self.config.window
        query = op.Unsqueeze(op.Add(new_slot, self.ints(w)), self.ints(1))
        distance = op.Sub(query, op.Unsqueeze(slot, self.ints(0)))
        near = op.And(op.GreaterOrEqual(distance, self.ints(0)), op.LessOrEqual(distance, self.ints(w)))
        oldest = op.Unsqueeze(op.Sub(self.ints(w), self.n_valid), self.ints(1, 2))
        filled = op.GreaterOrEqual(op.Unsqueeze(slot, self.ints(0, 1)), oldest)
        allowed = op.And(op.Unsqueeze(near, self.ints(0)), filled)
        value: ir.Value = op.Where(allowed, self.floats(0.0), self.floats(MASKED))
        return value

    def elapsed(self, all_time: ir.Value) -> ir.Value:
        """[B, T, S] log(1 + Δt) between every new event and every slot."""
        delta = self.op.Sub(self.op.Unsqueeze(self.time, self.ints(2)), self.op.Unsqueeze(all_time, self.ints(1)))
        return self.log_seconds(delta)

    def rope(self, slot: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Cosine and sine [S, d_head] of every slot."""
        d = self.config.d_head
        half = ROPE_BASE ** (-np.arange(0, d, 2, dtype=np.float32) / d)
        frequency = self.constant(np.concatenate([half, half]).astype(np.float32)[None], "rope_frequency")
        angle = self.op.Mul(self.op.Unsqueeze(self.cast(slot, FLOAT), self.ints(1)), frequency)
        return self.to_compute(self.op.Cos(angle)), self.to_compute(self.op.Sin(angle))

    def rotate(self, x: ir.Value, cos: ir.Value, sin: ir.Value) -> ir.Value:
        op, half = self.op, self.config.d_head // 2
        axis = self.ints(-1)
        low = op.Slice(x, self.ints(0), self.ints(half), axis)
        high = op.Slice(x, self.ints(half), self.ints(2 * half), axis)
        turned = op.Concat(op.Neg(high), low, axis=-1)
        value: ir.Value = op.Add(op.Mul(x, cos), op.Mul(turned, sin))
        return value

    def block(
        self,
        x: ir.Value,
        layer: int,
        mask: ir.Value,
        elapsed: ir.Value | None,
        rope: tuple[ir.Value, ir.Value],
    ) -> tuple[ir.Value, ir.Value, ir.Value | None]:
        """One layer → its output, keys and values of all slots [B, 2, S, d_head] as stored, and their scales."""
        op, name = self.op, f"blocks.{layer}"
        y = self.norm(x, f"{name}.norm_attention")
        stored, scale = self.keys_values(y, layer)
        read = self.dequantise(stored, scale)
        key = op.Squeeze(op.Slice(read, self.ints(0), self.ints(1), self.ints(1)), self.ints(1))
        value = op.Squeeze(op.Slice(read, self.ints(1), self.ints(2), self.ints(1)), self.ints(1))
        x = op.Add(x, self.attend(y, layer, self.rotate(key, *rope), value, mask, elapsed, rope))
        hidden = op.Gelu(self.linear(self.norm(x, f"{name}.norm_ff"), f"{name}.up"))
        return op.Add(x, self.linear(hidden, f"{name}.down")), stored, scale

    def keys_values(self, y: ir.Value, layer: int) -> tuple[ir.Value, ir.Value | None]:
        """Past and new keys and values of a layer as they are stored, [B, 2, S, d_head]."""
        op, c = self.op, self.config
        both = self.linear(y, f"blocks.{layer}.key_value", bias=False)
        both = op.Reshape(both, self.ints(0, 0, 2, c.d_head))
        new = op.Transpose(both, perm=[0, 2, 1, 3])
        past = op.Squeeze(op.Slice(self.kv, self.ints(layer), self.ints(layer + 1), self.ints(1)), self.ints(1))
        if not self.quantised:
            return op.Concat(past, self.cast(new, self.state_type), axis=2), None
        new = self.to_float(new)
        largest = op.Max(op.ReduceMax(op.Abs(new), self.ints(3), keepdims=1), self.floats(1e-8))
        new_scale = op.Div(largest, self.floats(127.0))
        new = self.cast(op.Round(op.Div(new, new_scale)), INT8)
        past_scale = op.Squeeze(
            op.Slice(self.scale, self.ints(layer), self.ints(layer + 1), self.ints(1)), self.ints(1)
        )
        scale = op.Concat(past_scale, op.Squeeze(new_scale, self.ints(3)), axis=2)
        return op.Concat(past, new, axis=2), scale

    def dequantise(self, stored: ir.Value, scale: ir.Value | None) -> ir.Value:
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
        rope: tuple[ir.Value, ir.Value],
    ) -> ir.Value:
        """Attention of the new events over all slots; scores and softmax in float32."""
        op, c = self.op, self.config
        query = op.Reshape(self.linear(y, f"blocks.{layer}.query", bias=False), self.ints(0, 0, c.heads, c.d_head))
        cos, sin = (self.op.Slice(r, self.ints(c.window), self.ints(2**31), self.ints(0)) for r in rope)
        query = self.rotate(op.Transpose(query, perm=[0, 2, 1, 3]), cos, sin)
        # One key/value head: the query heads fold into rows of one matrix product.
        rows = op.Reshape(query, self.ints(0, -1, c.d_head))
        score = self.to_float(op.MatMul(rows, op.Transpose(key, perm=[0, 2, 1])))
        score = op.Mul(score, self.floats(c.d_head**-0.5))
        bias = op.Unsqueeze(mask, self.ints(1))
        if elapsed is not None:
            raw = self._weights[f"blocks.{layer}.decay"].astype(np.float64)
            rate = np.log1p(np.exp(raw)).astype(np.float32).reshape(1, -1, 1, 1)
            decay = op.Mul(op.Unsqueeze(elapsed, self.ints(1)), self.constant(rate, f"decay_{layer}"))
            bias = op.Sub(bias, decay)
        # [B, heads · T, S] and [B, heads, T, S] are the same numbers; the bias knows the second shape.
        score = op.Add(
            op.Reshape(score, op.Concat(self.ints(0, c.heads, -1), op.Shape(score, start=2, end=3), axis=0)),
            bias,
        )
        weight = self.to_compute(op.Softmax(score, axis=-1))
        weight = op.Reshape(weight, op.Concat(self.ints(0, -1), op.Shape(weight, start=3, end=4), axis=0))
        mixed = op.Reshape(op.MatMul(weight, value), self.ints(0, c.heads, -1, c.d_head))
        mixed = op.Reshape(op.Transpose(mixed, perm=[0, 2, 1, 3]), self.ints(0, 0, c.heads * c.d_head))
        return self.linear(mixed, f"blocks.{layer}.out", bias=False)

    def write_state(self, keys_values: list[ir.Value], scales: list[ir.Value | None], all_time: ir.Value) -> None:
        """The next window: slots n_new … n_new + w − 1 of every layer."""
        op, c = self.op, self.config
        window = self.constant(np.arange(c.window, dtype=np.int64), "window")
        index = op.Add(op.Unsqueeze(self.n_new, self.ints(1)), window)
        spread = self.constant(np.zeros((c.layers, 2, 1), np.int64), "zeros_layers")
        index4 = op.Add(op.Unsqueeze(index, self.ints(1, 2)), spread)
        zeros = self.constant(np.zeros(c.d_head, np.int64), "zeros_d_head")
        index5 = op.Add(op.Unsqueeze(index4, self.ints(4)), zeros)
        stacked = op.Concat(*[op.Unsqueeze(kv, self.ints(1)) for kv in keys_values], axis=1)
        shape: list[int | str] = ["batch", c.layers, 2, c.window, c.d_head]
        self.output(op.GatherElements(stacked, index5, axis=3), "next_kv", self.state_type, shape)
        if self.quantised:
            stacked = op.Concat(*[op.Unsqueeze(s, self.ints(1)) for s in scales], axis=1)
            self.output(op.GatherElements(stacked, index4, axis=3), "next_scale", FLOAT, shape[:-1])
        self.output(op.GatherElements(all_time, index, axis=1), "next_time_ms", INT, ["batch", c.window])
        n_valid = op.Min(op.Add(self.n_valid, self.n_new), self.ints(c.window))
        self.output(n_valid, "next_n_valid", INT, ["batch"])
