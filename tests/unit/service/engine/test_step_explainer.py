"""Sessions and horizons as the explainer of a step tells them, over a graph that torch runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from service.artifact import graph_interface
from service.artifact.artifact import Artifact
from service.engine.encode import step_explainer
from service.engine.encode.step_explainer import HORIZONS, StepExplainer
from service.engine.onnx_session import GraphSession
from service.engine.placement import Placement
from tests.support.histories import random_history
from tests.support.networks import random_network


class TorchGraph:
    """Runs what the graph is traced from."""

    def __init__(self, model: GPT4Rec) -> None:
        self.step = TracedStep(model)
        interface = graph_interface.step_explainer(graph_shape(model.config, "float32"), state_layout(model.config))
        self.inputs, self.outputs = ([one.name for one in part] for part in (interface.inputs, interface.outputs))

    @torch.no_grad()
    def run(self, feeds: Mapping[str, Any], fixed: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        given = {**feeds, **fixed[0]}
        found = self.step(*(torch.from_numpy(np.ascontiguousarray(given[name])) for name in self.inputs))
        return {name: one.numpy() for name, one in zip(self.outputs, found, strict=True)}


@pytest.mark.parametrize("pad", [False, True])
def test_sessions_and_horizons_are_those_of_torch_of_any_length(pad: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_explainer, "READ_MAX", 30)
    model = random_network(encoder="hierarchy", layers=1, scale=1.0, state_dtype="float32")
    reach = receptive_field(model.config)
    about = cast("Artifact", SimpleNamespace(state_layout=state_layout(model.config), receptive_field=reach))
    explainer = StepExplainer(about, Placement("cpu", 1, pad=pad), cast("GraphSession", TorchGraph(model)))
    table = cast("Any", {"item_table": model.item_table().detach().numpy()})
    for n in (1, 20, 75):
        events = random_history(np.random.default_rng(n), n, 40)
        got, want = explainer.explain(events, table, started=False), memory_read(model, events)
        assert got.memory is not None and got.memory.sessions is not None and got.memory.slots is None
        assert got.memory.events == pytest.approx(want["events"][-30:].numpy(), abs=1e-5)
        assert got.memory.sessions.tolist() == want["sessions"][-30:].tolist()
        assert got.memory.horizons == pytest.approx(
            dict(zip(HORIZONS, want["horizons"].tolist(), strict=True)), abs=1e-5
        )
        shares = gradient_shares(model, events, newest=reach).numpy()
        assert [got.earlier, *got.weight] == pytest.approx(shares, abs=5e-3)
