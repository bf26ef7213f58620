"""Sessions and horizons as the explainer of a step tells them, over a graph that torch runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from export.graphs.graph_writer import graph_shape
from export.graphs.step_encoder import TracedStep
from model.network.encoders.registry import receptive_field, state_layout
from model.network.gpt4rec import GPT4Rec
from model.reference.additive_attention import gradient_shares, memory_read
from service.artifact.artifact import Artifact
from service.artifact.graphs import encoder_interface
from service.artifact.graphs import graph_names as names
from service.engine.encode import step_explainer
from service.engine.encode.encoder import Encoder
from service.engine.encode.step_explainer import HORIZONS, StepExplainer
from service.engine.encoder_state import EncoderState
from service.engine.jobs import EncodeJob
from service.engine.onnx_session import GraphSession
from service.engine.placement import Placement
from tests.support.artifacts import random_parts
from tests.support.histories import full_encode, random_history
from tests.support.networks import random_network


class TorchGraph:
    """Runs what the graph is traced from."""

    def __init__(self, model: GPT4Rec) -> None:
        self.step = TracedStep(model)
        interface = encoder_interface.step_explainer(graph_shape(model.config, "float32"), state_layout(model.config))
        self.inputs, self.outputs = ([one.name for one in part] for part in (interface.inputs, interface.outputs))

    @torch.no_grad()
    def run(self, feeds: Mapping[str, Any], fixed: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        given = {**feeds, **fixed[0]}
        found = self.step(*(torch.from_numpy(np.ascontiguousarray(given[name])) for name in self.inputs))
        return {name: one.numpy() for name, one in zip(self.outputs, found, strict=True)}


def about_of(model: GPT4Rec) -> SimpleNamespace:
    c = model.config
    return SimpleNamespace(
        state_layout=state_layout(c), receptive_field=receptive_field(c), vocabulary=random_parts(model).vocabulary,
        network=c.to_json(),
    )  # fmt: skip


@pytest.mark.parametrize(("pad", "named"), [(False, True), (True, False)])
def test_sessions_and_horizons_are_those_of_torch_of_any_length(
    pad: bool, named: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_explainer, "READ_MAX", 30)
    model = random_network(encoder="hierarchy", layers=1, scale=1.0, state_dtype="float32", session_ids=named)
    reach = receptive_field(model.config)
    about = cast("Artifact", about_of(model))
    explainer = StepExplainer(about, Placement("cpu", 1, pad=pad), cast("GraphSession", TorchGraph(model)))
    table = cast("Any", {"item_table": model.item_table().detach().numpy()})
    for n in (1, 20, 75):
        events = random_history(np.random.default_rng(n), n, 40)
        events = replace(events, session=np.random.default_rng(n).integers(0, 4, n)) if named else events
        got, want = explainer.explain(events, table, started=False), memory_read(model, events)
        assert got.memory is not None and got.memory.sessions is not None and got.memory.slots is None
        assert got.memory.events == pytest.approx(want["events"][-30:].numpy(), abs=1e-5)
        assert got.memory.sessions.tolist() == want["sessions"][-30:].tolist()
        assert got.memory.horizons == pytest.approx(
            dict(zip(HORIZONS, want["horizons"].tolist(), strict=True)), abs=1e-5
        )
        shares = gradient_shares(model, events, newest=reach).numpy()
        assert [got.earlier, *got.weight] == pytest.approx(shares, abs=5e-3)


def test_the_encoder_of_sessions_by_name_gives_the_graph_the_names_of_every_chunk() -> None:
    model = random_network(encoder="hierarchy", layers=1, scale=1.0, state_dtype="float32", session_ids=True)
    graph, about = TorchGraph(model), about_of(model)
    table = model.item_table().detach().numpy()

    def run(feeds: Mapping[str, Any], fixed: Mapping[str, Any], _: object, rows: int) -> dict[str, Any]:
        amount = np.ones(feeds[names.ITEM].shape, np.float32)
        return graph.run({**feeds, names.ITEM_TABLE: table, names.AMOUNT: amount}, [fixed])

    encoder = Encoder(cast("Artifact", about), Placement("cpu", 1, pad=False), run, steps=True)
    histories = [
        replace(random_history(np.random.default_rng(n), n, 40), session=np.random.default_rng(n).integers(0, 4, n))
        for n in (3, 30, 150)
    ]
    half = [len(events) // 2 for events in histories]
    firsts = encoder.encode(
        [EncodeJob(events=events.at(slice(0, n)), from_start=True) for events, n in zip(histories, half, strict=True)]
    )
    jobs = [
        EncodeJob(state=cast("EncoderState", state), events=events.after(n), from_start=False)
        for state, events, n in zip(firsts, histories, half, strict=True)
    ]
    for state, events in zip(encoder.encode(jobs), histories, strict=True):
        assert isinstance(state, EncoderState)
        assert state.h == pytest.approx(full_encode(model, about.vocabulary, events), abs=1e-4)
        unnamed = full_encode(model, about.vocabulary, replace(events, session=None))
        assert len(events) == 3 or np.abs(state.h - unnamed).max() > 1e-3
