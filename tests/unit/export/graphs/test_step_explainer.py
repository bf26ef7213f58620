"""Explainers of encoders that are exported from their `step`: shares by gradient, and what was read from memory."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import onnx
import pytest

from export.graphs import step_encoder
from export.graphs.graph_writer import GraphDtype, graph_shape
from model.network.encoders.registry import encoder_class, receptive_field, state_layout
from model.reference.additive_attention import gradient_shares, memory_read
from service.artifact import graph_interface
from service.artifact.manifest import EXPLAINER
from service.engine.encode import step_explainer
from service.engine.engine import Engine
from service.engine.interface import Explanation
from service.schemas import responses as out
from tests.support.aio import asynchronous
from tests.support.fakes import FakeEngine
from tests.support.networks import random_network
from tests.support.serving import serving
from tests.unit.export.graphs.test_graph_interface import interface_of
from tests.unit.export.graphs.test_graph_kernels import missing_kernels, value_types
from tests.unit.export.graphs.test_step_encoder import NAMES, Served, history

START_MS = 1_700_000_000_000


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    """The encoder with most to show: it attends to sessions, and fuses horizons."""
    return Served(random_network(encoder="hierarchy", layers=1, scale=1.0), tmp_path_factory.mktemp("artifact"))


@pytest.fixture(params=[False, True], ids=["plain", "padded"])
def engine(request: pytest.FixtureRequest, served: Served) -> Engine:
    return Engine(served.artifact, device="cpu", threads=1, pad=request.param)


def explained(engine: Engine, seed: int, n: int) -> Explanation:
    return engine.explain(history(seed, n), from_start=True)


@pytest.mark.parametrize("n", [1, 9, 10, 70])
def test_events_have_the_shares_of_torchs_gradient_and_those_before_them_one_together(
    served: Served, engine: Engine, n: int
) -> None:
    """With start token nine events are in the receptive field."""
    reach, got = receptive_field(served.model.config), explained(engine, n, n)
    events = served.artifact.vocabulary.with_start(history(n, n))
    want = gradient_shares(served.model, events, newest=reach).numpy()
    started = [got.start] if n < reach else []
    assert got.method == "gradient" and len(got.weight) == min(n, reach)
    assert [got.earlier, *started, *got.weight] == pytest.approx(want, abs=2e-2)
    assert got.earlier + got.start + got.weight.sum() == pytest.approx(1.0, abs=1e-5)
    assert (got.earlier > 0) == (n >= reach)
    assert got.h == pytest.approx(served.whole(history(n, n)), abs=served.tolerance)


@pytest.mark.parametrize("most", [None, 16])
def test_what_was_read_from_memory_is_what_torch_says(
    served: Served, engine: Engine, monkeypatch: pytest.MonkeyPatch, most: int | None
) -> None:
    """Also of a history that is longer than what is shown: then it begins with a state."""
    if most is not None:
        monkeypatch.setattr(step_explainer, "READ_MAX", most)
    for n in (1, 15, 16, 70):
        read = explained(engine, n, n).memory
        assert read is not None and read.sessions is not None and read.horizons is not None and read.slots is None
        want = memory_read(served.model, served.artifact.vocabulary.with_start(history(n, n)))
        m = min(n, most or n)
        assert read.events == pytest.approx(want["events"][-m:].numpy(), abs=served.tolerance)
        assert read.sessions.tolist() == want["sessions"][-m:].tolist()
        assert [*read.horizons.values()] == pytest.approx(want["horizons"].tolist(), abs=served.tolerance)
        assert read.events.sum() < 1.0 + 1e-5


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_the_explainer_of_a_step_has_its_interface_and_cuda_kernels(
    served: Served, dtype: GraphDtype, tmp_path: Any
) -> None:
    config = served.model.config
    graph = step_encoder.step_graph(served.model, served.traced, dtype, explains=True)
    onnx.save(graph, tmp_path / EXPLAINER)
    wanted = graph_interface.step_explainer(graph_shape(config, dtype), state_layout(config))
    assert interface_of(tmp_path / EXPLAINER) == wanted
    if dtype != "int8":  # int8 graphs are not served by CUDA
        assert missing_kernels(graph) == []
        assert missing_kernels(step_encoder.step_graph(served.model, served.traced, dtype)) == []
    assert "double" not in value_types(graph).values()
    assert not {node.op_type for node in graph.graph.node} & {"Loop", "If", "Scan"}


def test_the_encoder_has_nothing_of_the_explainer(served: Served) -> None:
    encoder, explainer = (onnx.load(served.artifact.folder / f"{name}.onnx").graph for name in ("encoder", "explainer"))
    assert {one.name for one in encoder.initializer} <= {one.name for one in explainer.initializer}
    produced = {name for node in encoder.node for name in node.output}
    used = {name for node in encoder.node for name in node.input} | {one.name for one in encoder.output}
    assert produced <= used and "amount" not in used


def test_encoders_that_show_their_memory_have_outputs_for_it() -> None:
    for name in NAMES:
        config = random_network(encoder=name).config
        step, explainer = (
            make(graph_shape(config, "float32"), state_layout(config))
            for make in (graph_interface.step_encoder, graph_interface.step_explainer)
        )
        assert (len(explainer.outputs) > len(step.outputs)) == encoder_class(name).shows_memory, name


@asynchronous
async def test_a_list_says_what_the_network_read_from_its_memory(served: Served) -> None:
    ids = served.artifact.catalogue.item_ids
    items, minutes = [ids[n] for n in (3, 5, 7, 9)], [0, 1, 600, 601]  # two sessions of two events
    events = [
        {"item_id": item, "type": "view", "timestamp": START_MS + minute * 60_000}
        for item, minute in zip(items, minutes, strict=True)
    ]
    whole = served.artifact.vocabulary.events(items, ["view"] * 4, [event["timestamp"] for event in events])  # type: ignore[misc]
    want = memory_read(served.model, served.artifact.vocabulary.with_start(whole))
    async with serving(cast("FakeEngine", served.engine), deadline_ms=60_000.0, playground=True) as service:
        body = {"events": events, "k": 5, "explain": True, "decoding": {"strategy": "beam"}}
        answer = out.RecommendAnswer.model_validate(await service.recommend(**body))
        told = await service.client.post("/playground/why", json={"events": events[::-1]})
    why = out.WhyAnswer.model_validate(told.json())
    shares = want["events"][1:].numpy()
    assert why.memory is not None and why.memory.sessions is not None and why.memory.slots is None
    assert why.memory.events[::-1] == pytest.approx(shares, abs=served.tolerance)
    assert [one == why.memory.sessions[0] for one in why.memory.sessions] == [True, True, False, False]
    assert sum(why.weights) + why.start + why.earlier == pytest.approx(1.0, abs=1e-5)
    by_network = [item.because for item in answer.items if item.because and item.because.memory]
    assert by_network and all(one.event is not None and one.event.by == "gradient" for one in by_network)
    [read] = {one.memory.model_dump_json(): one.memory for one in by_network if one.memory}.values()
    best = int(np.argmax(shares))
    assert read.event is not None and read.session is not None and read.horizons == why.memory.horizons
    assert read.event.item_id == items[best] and read.event.share == pytest.approx(shares[best], abs=served.tolerance)
    newest = shares[2:].sum() > shares[:2].sum()
    assert read.session.share == pytest.approx(max(shares[2:].sum(), shares[:2].sum()), abs=served.tolerance)
    session = events[2:] if newest else events[:2]
    assert (read.session.events, read.session.from_ms, read.session.to_ms) == (
        2,
        session[0]["timestamp"],
        session[1]["timestamp"],
    )
    assert read.earlier == pytest.approx(1 - shares.sum(), abs=served.tolerance)
