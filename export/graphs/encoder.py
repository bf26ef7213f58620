"""`encoder.onnx`: state + new events → state and h.

The same computation as `model.network.gpt4rec.GPT4Rec.forward`, over the last `window` keys and values instead of the whole
history. The past is right-aligned: valid slots are w − n_valid … w − 1, new events follow from slot w on, and the next
window is one gather at n_new + 0…w−1, padded rows included. Keys are stored unrotated and rotated by the slot they are
read in, so positions never grow. What follows from the numbers of events alone is an input (`service.engine.encode.window_inputs`).
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


class EncoderGraph(Backbone):
    def __init__(self, config: NetworkConfig, weights: Mapping[str, npt.NDArray[Any]], dtype: GraphDtype) -> None:
        super().__init__("gpt4rec_encoder", config, weights, dtype)
        c = config
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

    def keys_values(self, y: ir.Value, layer: int) -> tuple[ir.Value, ir.Value | None]:
        """Past and new."""
        op = self.op
        new, new_scale = self.new_keys_values(y, layer)
        past = op.Gather(self.kv, self.scalar(layer), axis=1)
        if new_scale is None:
            return op.Concat(past, new, axis=2), None
        past_scale = op.Gather(self.scale, self.scalar(layer), axis=1)
        return op.Concat(past, new, axis=2), op.Concat(past_scale, new_scale, axis=2)

    def attended(self, weight: ir.Value) -> None:
        """Nothing of it leaves the graph."""

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
