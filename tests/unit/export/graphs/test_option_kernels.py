"""Whatever a setting of an encoder's network adds to its graph has a kernel in onnxruntime's CUDA provider.

torch takes up to twenty seconds to trace an encoder, so of most settings only their own part is traced here, all parts
together: the boundaries of sessions by pauses and by name, and in one window every pattern, position and decay, and
every compression. Parts are the code that trains, with symbolic sizes, as `step_encoder.trace_step` traces a step.
"""

from __future__ import annotations

from typing import Any, cast, get_args

import onnx
import pytest
import torch
from torch import Tensor, nn

from export.graphs.step_encoder import traced_module
from model.network.config import Compression, Pattern, Position, TimeDecay
from model.network.encoders.base import Events
from model.network.encoders.compressive import Compressive
from model.network.encoders.hierarchy import LAST_NAMED, Hierarchy, SessionReader
from model.network.encoders.window_attention import WindowAttention, WindowBlock
from tests.support.networks import random_network
from tests.unit.export.graphs.test_graph_kernels import missing_kernels, value_types

# Each value of a setting is in one of them; `relative` is a part of `relative_time`.
WINDOWS: tuple[dict[str, Any], ...] = (
    {"pattern": "window", "positions": "rotary", "time_decay": "logarithmic"},
    {"pattern": "strided", "positions": "relative_time", "time_decay": "exponential"},
    {"pattern": "fixed", "positions": "sinusoid", "time_decay": "linear", "decay_rate": 0.1},
    {"pattern": "routing", "positions": "none", "time_decay": "none", "routed_keys": 3},
)
OF_EVENTS = ("x", "time_ms", "previous_ms", "session")
COMPRESSIONS: tuple[Compression, ...] = get_args(Compression)


def encoder_of(**settings: Any) -> nn.Module:
    return random_network(layers=1, **settings).encoder


class OptionParts(nn.Module):
    """One run of the parts of all settings, over a state of past times and a chunk of events."""

    def __init__(self) -> None:
        super().__init__()
        named, plain = (encoder_of(encoder="hierarchy", session_ids=by_name) for by_name in (True, False))
        self.named, self.plain = cast("Hierarchy", named).sessions, cast("Hierarchy", plain).sessions
        self.windows = nn.ModuleList(encoder_of(encoder="window_attention", **settings) for settings in WINDOWS)
        self.compressive = nn.ModuleList(encoder_of(encoder="compressive", compression=c) for c in COMPRESSIONS)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        x, time_ms, previous_ms, session, last, past, past_ms, length = inputs
        events = Events(time_ms, time_ms, x, x, length, session=session, previous_ms=previous_ms, n_valid=length)
        out = [reader_of(self.named).begins(events, {LAST_NAMED: last}), reader_of(self.plain).begins(events, {})]
        out.append(reader_of(self.named).named(events).gather(1, length[:, None] - 1))
        for window in self.windows:
            out += self.added(cast("WindowAttention", window), x, past, past_ms, time_ms, length)
        for encoder in self.compressive:
            block = cast("Any", cast("Compressive", encoder).blocks[0])
            out.append(block.compressed(past))
        return tuple(out)

    def added(
        self, window: WindowAttention, x: Tensor, past: Tensor, past_ms: Tensor, time_ms: Tensor, length: Tensor
    ) -> list[Tensor]:
        """What the settings of a window add to the scores of plain attention, and what may be read."""
        at = window.geometry(torch.cat([past_ms, time_ms], 1), time_ms, length, length)
        block, c = cast("WindowBlock", window.blocks[0]), window.c
        out = [at.allowed.to(torch.float32)] if c.pattern in ("strided", "fixed") else []
        if block.relative is not None:
            out.append(block.relative(at.distance))
        if block.time is not None and at.elapsed is not None:
            out.append(block.time(at.elapsed))
        if block.sinusoid is not None and at.sinusoids is not None:
            out.append(block.sinusoid(x[:, None, :, : c.d_head].expand(-1, c.heads, -1, -1), *at.sinusoids))
        if block.decay is not None and at.age is not None:
            out.append(block.decay(at.age))
        if block.router is not None:
            key = torch.cat([past, x], dim=1)[..., : c.d_head]
            out.append(block.router(x, key, at.allowed, at.distance == 0))
        return out


def reader_of(module: nn.Module) -> SessionReader:
    return cast("SessionReader", module)


@pytest.fixture(scope="module")
def graph() -> onnx.ModelProto:
    parts = OptionParts().eval()
    c = cast("WindowAttention", parts.windows[0]).c
    batch, events = 3, 5
    inputs = {
        "x": torch.zeros(batch, events, c.d_model),
        "time_ms": torch.zeros(batch, events, dtype=torch.int64),
        "previous_ms": torch.zeros(batch, events, dtype=torch.int64),
        "session": torch.zeros(batch, events, dtype=torch.int64),
        "last": torch.zeros(batch, 1, dtype=torch.int64),
        "past": torch.zeros(batch, c.window, 2 * c.d_head),
        "past_ms": torch.zeros(batch, c.window, dtype=torch.int64),
        "length": torch.ones(batch, dtype=torch.int64),
    }
    rows, columns = torch.export.Dim("batch"), torch.export.Dim("events")
    shapes = [{0: rows, 1: columns} if name in OF_EVENTS else {0: rows} for name in inputs]
    return traced_module(parts, list(inputs.values()), shapes, list(inputs))


def test_every_setting_is_in_one_of_the_windows() -> None:
    every = {"pattern": get_args(Pattern), "positions": get_args(Position), "time_decay": get_args(TimeDecay)}
    assert {name: {one[name] for one in WINDOWS if name in one} for name in every} == {
        name: set(values) - {"relative"} for name, values in every.items()
    }


def test_the_parts_of_every_setting_have_cuda_kernels(graph: onnx.ModelProto) -> None:
    assert missing_kernels(graph) == []
    assert "double" not in value_types(graph).values()
    assert not {node.op_type for node in graph.graph.node} & {"Loop", "If", "Scan"}
