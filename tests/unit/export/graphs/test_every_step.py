"""Every encoder that streams, as it is served: its graph is torch's, a GPU has its kernels, and no event is forgotten.

`test_step_encoder.py` says more of one of them, `test_streaming.py` of the default encoder.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from export.graphs import step_encoder
from export.graphs.graph_writer import GraphDtype
from model.reference.additive_attention import memory_read
from service.engine.engine import Engine
from tests.support.aio import asynchronous
from tests.support.networks import random_network
from tests.support.valkey import Valkey
from tests.unit.export.graphs.test_graph_kernels import missing_kernels, value_types
from tests.unit.export.graphs.test_step_encoder import (
    BY_NAME,
    NAMES,
    TRACED,
    Served,
    encoded,
    follows_every_event,
    history,
    part,
    with_sessions,
)

WINDOW: dict[str, Any] = {"encoder": "window_attention", "stride": 3, "routed_keys": 3, "max_distance": 5}
# The choices of an encoder that make other nodes. Each value of a setting is there once or more.
VARIANTS: dict[str, dict[str, Any]] = {
    "gated linear": {"encoder": "gated_linear"},
    "compressive, mean": {"encoder": "compressive"},
    "compressive, convolution": {"encoder": "compressive", "compression": "convolution", "compression_ratio": 3},
    "compressive, attention": {"encoder": "compressive", "compression": "attention", "state_dtype": "int8"},
    "hierarchy by name": BY_NAME,
    "window": WINDOW,
    "strided": {**WINDOW, "pattern": "strided", "positions": "relative_time", "time_decay": "linear"},
    "fixed": {**WINDOW, "pattern": "fixed", "positions": "sinusoid", "time_decay": "exponential"},
    "routing": {**WINDOW, "pattern": "routing", "positions": "relative", "time_decay": "none"},
}
# They take long to trace, and differ in a few nodes from one of the others or from that of `test_step_encoder.py`.
LONG = ("compressive, mean", "compressive, convolution", "hierarchy by name", "strided", "fixed")


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=[pytest.mark.fleet] if name in LONG else []) for name in VARIANTS]
)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Served:
    model = random_network(**VARIANTS[request.param], layers=1, scale=1.0)
    return Served(model, tmp_path_factory.mktemp("artifact"))


def test_no_encoder_that_streams_is_left_out() -> None:
    assert {one["encoder"] for one in (TRACED, *VARIANTS.values())} == {*NAMES}


def test_onnx_equals_torch_over_any_split_alone_and_in_padded_batches(served: Served) -> None:
    rng = np.random.default_rng(0)
    named = served.artifact.vocabulary.reads_sessions
    histories = [with_sessions(n, n) if named else history(n, n) for n in (1, 2, 9, 40, 90)]
    for engine in (served.engine, Engine(served.artifact, device="cpu", threads=1, pad=True)):
        for events in histories[1:]:
            for splits in (rng.integers(1, len(events), 6).tolist(), range(1, len(events))):
                state = served.stream(events, splits, engine)
                np.testing.assert_allclose(state.h, served.whole(events), atol=served.tolerance)
        firsts = encoded(engine, [(None, part(events, 0, len(events) // 2)) for events in histories[1:]])
        rest = [(state, events.after(len(events) // 2)) for state, events in zip(firsts, histories[1:], strict=True)]
        together = encoded(engine, [(None, histories[0]), *rest])
        for state, events in zip(together, histories, strict=True):
            np.testing.assert_allclose(state.h, served.whole(events), atol=served.tolerance)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_every_node_has_a_cuda_kernel_for_its_types(served: Served, dtype: GraphDtype) -> None:
    for explains in (False, True):
        graph = step_encoder.step_graph(served.model, served.traced, dtype, explains=explains)
        assert missing_kernels(graph) == []
        assert "double" not in value_types(graph).values()
        assert not {node.op_type for node in graph.graph.node} & {"Loop", "If", "Scan"}


def test_the_shares_of_events_add_up_and_what_was_read_from_memory_is_what_torch_says(served: Served) -> None:
    events = history(7, 9)
    got = served.engine.explain(events, from_start=True)
    assert float(got.weight.sum()) + got.start + got.earlier == pytest.approx(1.0, abs=1e-4)
    assert (got.memory is not None) == type(served.model.encoder).shows_memory
    if got.memory is not None:
        want = memory_read(served.model, served.artifact.vocabulary.with_start(events))
        assert got.memory.events == pytest.approx(want["events"][1:].numpy(), abs=served.tolerance)
        assert got.memory.sessions is not None and got.memory.horizons is not None


@asynchronous
async def test_no_event_is_forgotten_whatever_is_late_repeated_or_trimmed(
    served: Served, shared_valkey: Valkey
) -> None:
    await follows_every_event(served, shared_valkey)
