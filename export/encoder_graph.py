"""`encoder.onnx`: state + new events → state and h.

The same computation as `model.network.GPT4Rec.forward`, over the last `window` keys and values instead of the whole
history. The past is right-aligned: valid slots are w − n_valid … w − 1, new events follow from slot w on, and the next
window is one gather at n_new + 0…w−1, padded rows included. Keys are stored unrotated and rotated by the slot they are
read in, so positions never grow. What follows from the numbers of events alone is an input (`service.windows`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from export.graph import BOOL, FLOAT, HALF, INT, INT8, GraphDtype, GraphWriter
from model.network import PERIODS_MS, ROPE_BASE, NetworkConfig

MASKED = -30_000.0  # a float16 number, and far below any score

STATE_TYPES = {"float32": FLOAT, "float16": HALF, "int8": INT8}


def write_encoder(
    config: NetworkConfig, weights: Mapping[str, npt.NDArray[Any]], path: Path, dtype: GraphDtype
) -> None:
    """Inputs for B rows, T new events, L layers, w window, S = w + T slots, N items:

    the state     kv [B, L, 2, w, d_head] in the state's type, scale [B, L, 2, w] float32 (int8 states only),
                  past_time_ms [B, w], first_slot [B, 1, 1]: the first slot with an event in it, w − n_valid
    the events    item / type / time_ms [B, T] right-padded, previous_ms [B, T]: the time of the event before
    what is kept  kept_slot [B, w] = n_new + 0 … w − 1; kept_row [B, L, 2, w]: row of [B, L, 2, S] of each of them;
                  last_row [B] = row · T + n_new − 1
    the shape     near [1, T, S] bool: slots in the window of each new event; slot [1, 1, S] = 0 … S − 1;
                  scores = [−1, heads, T, S], folded = [−1, heads · T, S]
    the catalogue item_table [N + 2, d]
    Outputs: next_kv, next_scale, next_time_ms, h [B, d] float32 after the last new event. The number of events in the
    next window is min(w, n_valid + n_new).
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
        self.first_slot = self.input("first_slot", INT, ["batch", 1, 1])
        self.item, self.type, self.time, self.previous = (
            self.input(name, INT, ["batch", "events"]) for name in ("item", "type", "time_ms", "previous_ms")
        )
        self.kept_slot = self.input("kept_slot", INT, ["batch", c.window])
        self.kept_row = self.input("kept_row", INT, ["batch", c.layers, 2, c.window])
        self.last_row = self.input("last_row", INT, ["batch"])
        self.near = self.input("near", BOOL, [1, "events", "all_slots"])
        self.slot = self.input("slot", INT, [1, 1, "all_slots"])
        self.scores, self.folded = (self.input(name, INT, [n]) for name, n in (("scores", 4), ("folded", 3)))
        self.table = self.input("item_table", self.compute, ["rows", c.d_model])

    def write(self, path: Path) -> None:
        op, c = self.op, self.config
        all_time = op.Concat(self.past_time, self.time, axis=1)
        x = self.embed()
        allowed = op.And(self.near, op.GreaterOrEqual(self.slot, self.first_slot))
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
        h = op.Gather(op.Reshape(x, self.ints(-1, c.d_model)), self.last_row, axis=0)
        self.output(op.Cast(h, to=int(FLOAT)), "h", FLOAT, ["batch", c.d_model])
        self.save(path)

    def embed(self) -> ir.Value:
        """Item + type + gap + period; the start token is its item row alone."""
        op, c = self.op, self.config
        x = op.Gather(self.weight("event_type.weight"), self.type, axis=0)
        if c.has_time:
            x = op.Add(x, self.times())
        is_event = op.Less(self.type, self.ints(c.n_types))
        x = op.Mul(x, op.Unsqueeze(self.cast(is_event, self.compute), self.ints(2)))
        value: ir.Value = op.Add(op.Gather(self.table, self.item, axis=0), x)
        return value

    def times(self) -> ir.Value:
        """Embedded log(1 + gap) to the event before, and the phases of the periods."""
        op = self.op
        periods = np.array(PERIODS_MS, np.int64)
        phase = op.Mod(op.Unsqueeze(self.time, self.ints(2)), self.constant(periods, "periods"))
        turn = self.constant((2 * np.pi / periods).astype(np.float32), "turn")
        phase = op.Mul(self.cast(phase, FLOAT), turn)
        log_gap = op.Unsqueeze(self.log_seconds(op.Sub(self.time, self.previous)), self.ints(2))
        log_gap = op.Mul(log_gap, self.floats(0.1))
        both = self.to_compute(op.Concat(op.Sin(phase), op.Cos(phase), log_gap, axis=2))
        # The network's columns are sine and cosine of each period in turn.
        period = self._weights["period.weight"]
        columns = np.concatenate([period[:, 0::2], period[:, 1::2], self._weights["gap.weight"]], axis=1)
        self._weights = {**self._weights, "times.weight": columns}
        return self.linear(both, "times", bias=False)

    def elapsed(self, all_time: ir.Value) -> ir.Value:
        """[B, T, S] log(1 + Δt) between every new event and every slot."""
        delta = self.op.Sub(self.op.Unsqueeze(self.time, self.ints(2)), self.op.Unsqueeze(all_time, self.ints(1)))
        return self.log_seconds(delta)

    def rope(self) -> list[ir.Value]:
        """Cosine and sine [S, d_head] of every slot."""
        op, d = self.op, self.config.d_head
        half = ROPE_BASE ** (-np.arange(0, d, 2, dtype=np.float32) / d)
        frequency = self.constant(np.concatenate([half, half]).astype(np.float32)[None], "rope_frequency")
        angle = op.Mul(self.cast(op.Reshape(self.slot, self.ints(-1, 1)), FLOAT), frequency)
        return [self.to_compute(op.Cos(angle)), self.to_compute(op.Sin(angle))]

    def rotate(self, x: ir.Value, rope: Sequence[ir.Value]) -> ir.Value:
        """x ⊙ cos + turned(x) ⊙ sin; turning is a product with a matrix of 0 and ±1."""
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
        """One layer → its output, keys and values of all slots [B, 2, S, d_head] as stored, and their scales."""
        op, name = self.op, f"blocks.{layer}"
        y = self.norm(x, f"{name}.norm_attention")
        stored, scale = self.keys_values(y, layer)
        read = self.dequantise(stored, scale)
        key, value = (op.Gather(read, self.scalar(i), axis=1) for i in (0, 1))
        x = op.Add(x, self.attend(y, layer, self.rotate(key, rope), value, mask, elapsed, query_rope))
        hidden = op.Gelu(self.linear(self.norm(x, f"{name}.norm_ff"), f"{name}.up"))
        return op.Add(x, self.linear(hidden, f"{name}.down")), stored, scale

    def keys_values(self, y: ir.Value, layer: int) -> tuple[ir.Value, ir.Value | None]:
        """Past and new keys and values of a layer as they are stored, [B, 2, S, d_head]."""
        op, c = self.op, self.config
        both = self.linear(y, f"blocks.{layer}.key_value", bias=False)
        both = op.Reshape(both, self.ints(0, 0, 2, c.d_head))
        new = op.Transpose(both, perm=[0, 2, 1, 3])
        past = op.Gather(self.kv, self.scalar(layer), axis=1)
        if not self.quantised:
            return op.Concat(past, self.cast(new, self.state_type), axis=2), None
        new = self.to_float(new)
        largest = op.Max(op.ReduceMax(op.Abs(new), self.ints(3), keepdims=1), self.floats(1e-8))
        new_scale = op.Div(largest, self.floats(127.0))
        new = self.cast(op.Round(op.Div(new, new_scale)), INT8)
        past_scale = op.Gather(self.scale, self.scalar(layer), axis=1)
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
        rope: Sequence[ir.Value],
    ) -> ir.Value:
        """Attention of the new events over all slots; scores and softmax in float32."""
        op, c = self.op, self.config
        query = op.Reshape(self.linear(y, f"blocks.{layer}.query", bias=False), self.ints(0, 0, c.heads, c.d_head))
        query = self.rotate(op.Transpose(query, perm=[0, 2, 1, 3]), rope)
        # One key/value head: the query heads fold into rows of one matrix product.
        rows = op.Reshape(query, self.ints(0, -1, c.d_head))
        score = self.to_float(op.MatMul(rows, op.Transpose(key, perm=[0, 2, 1])))
        score = op.Mul(score, self.floats(c.d_head**-0.5))
        bias = mask
        if elapsed is not None:
            raw = self._weights[f"blocks.{layer}.decay"].astype(np.float64)
            rate = np.log1p(np.exp(raw)).astype(np.float32).reshape(1, -1, 1, 1)
            decay = op.Mul(elapsed, self.constant(rate, f"decay_{layer}"))
            bias = op.Sub(bias, decay)
        # [B, heads · T, S] and [B, heads, T, S] are the same numbers; the bias knows the second shape.
        score = op.Add(op.Reshape(score, self.scores), bias)
        weight = op.Reshape(self.to_compute(op.Softmax(score, axis=-1)), self.folded)
        mixed = op.Reshape(op.MatMul(weight, value), self.ints(0, c.heads, -1, c.d_head))
        mixed = op.Reshape(op.Transpose(mixed, perm=[0, 2, 1, 3]), self.ints(0, 0, c.heads * c.d_head))
        return self.linear(mixed, f"blocks.{layer}.out", bias=False)

    def write_state(self, keys_values: list[ir.Value], scales: list[ir.Value | None], all_time: ir.Value) -> None:
        """The next window: slots n_new … n_new + w − 1 of every layer."""
        op, c = self.op, self.config
        stacked = op.Concat(*[op.Unsqueeze(kv, self.ints(1)) for kv in keys_values], axis=1)
        rows = op.Reshape(stacked, self.ints(-1, c.d_head))
        shape: list[int | str] = ["batch", c.layers, 2, c.window, c.d_head]
        self.output(op.Gather(rows, self.kept_row, axis=0), "next_kv", self.state_type, shape)
        if self.quantised:
            stacked = op.Concat(*[op.Unsqueeze(s, self.ints(1)) for s in scales], axis=1)
            kept = op.Gather(op.Reshape(stacked, self.ints(-1)), self.kept_row, axis=0)
            self.output(kept, "next_scale", FLOAT, shape[:-1])
        self.output(op.GatherElements(all_time, self.kept_slot, axis=1), "next_time_ms", INT, ["batch", c.window])
