"""Encoders without a state: their graphs equal the network, and the engine encodes whole histories with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from export import artifact_writer
from export.graphs.graph_writer import GraphDtype
from export.graphs.history_encoder import WRITERS, write_history_encoder
from export.graphs.history_explainer import write_history_explainer
from export.parity_gate import TOLERANCE, Probe
from model.network.encoders.registry import receptive_field
from model.network.gpt4rec import GPT4Rec
from model.reference.additive_attention import additive_attention, gradient_shares
from model.reference.attention_rollout import history_rollout
from service.artifact.artifact import Artifact
from service.artifact.features import GAP_UNKNOWN, EventArrays
from service.artifact.graphs.encoder_interface import ROLLED_OUT
from service.common.errors import ModelError
from service.engine.decoding import Decoding
from service.engine.encoder_state import EncoderState
from service.engine.engine import Engine
from service.engine.jobs import EncodeJob, Job, ListRequest
from service.history import state_blob
from service.history.state_blob import VersionedState
from service.lifecycle import canary
from tests.support.artifacts import random_parts, write_artifact
from tests.support.histories import encoder_input, random_history
from tests.support.networks import random_network, weights_of
from tests.unit.export.graphs.test_graph_kernels import missing_kernels, value_types

NAMES = tuple(WRITERS)
# Encoders that show their attention. A GRU has none; streams of behaviours have one each, of their own events alone.
METHODS = {"lstm_attention": "attention", **dict.fromkeys(ROLLED_OUT, "attention_rollout")}
WINDOW = 12
N_ITEMS = 40


def a_network(name: str) -> GPT4Rec:
    return random_network(encoder=name, window=WINDOW, scale=1.5)


def history(seed: int, n: int) -> EventArrays:
    return random_history(np.random.default_rng(seed), n, N_ITEMS)


def job(events: EventArrays, state: EncoderState | None = None) -> EncodeJob:
    """A job as the service builds it for a history."""
    kept = events.after(max(0, len(events) - WINDOW))
    return EncodeJob(state=state, events=kept, from_start=len(events) <= WINDOW and state is None)


@pytest.fixture(scope="module", params=NAMES)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[GPT4Rec, Artifact]:
    """A network, and its artefact that has passed the gate."""
    model = a_network(request.param)
    probes = [Probe(history(n, n), {"age": "old"} if n % 2 else {}) for n in (0, 1, 5, WINDOW, WINDOW + 9)]
    folder, result = artifact_writer.export(random_parts(model), tmp_path_factory.mktemp("artifact"), "float32", probes)
    assert result.failures == []
    return model, Artifact.open(folder)


def test_onnx_equals_torch_at_every_length_alone_in_a_batch_and_padded(served: tuple[GPT4Rec, Artifact]) -> None:
    model, artifact = served
    histories = [history(n, n) for n in range(1, WINDOW + 4)]
    wanted = [_torch_h(model, artifact, events) for events in histories]
    engines = [Engine(artifact, device="cpu", threads=1), Engine(artifact, device="cpu", threads=1, pad=True)]
    for engine in engines:
        together = engine.encode([job(events) for events in histories])
        alone = [engine.encode([job(events)])[0] for events in histories]
        for found in (together, alone):
            for state, h in zip(found, wanted, strict=True):
                assert isinstance(state, EncoderState)
                assert state.h == pytest.approx(h, abs=1e-4)


def _torch_h(model: GPT4Rec, artifact: Artifact, events: EventArrays) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    seen = encoder_input(events, WINDOW, artifact.vocabulary)
    item, kind, time_ms = (torch.from_numpy(a)[None] for a in (seen.item, seen.type, seen.time_ms))
    with torch.no_grad():
        h: np.ndarray[tuple[int], np.dtype[np.float32]] = model.encode(item, kind, time_ms, torch.tensor([len(seen)]))[
            0
        ].numpy()
    return h


def test_its_artefact_says_that_it_does_not_stream_and_explains_its_states_as_torch_does(
    served: tuple[GPT4Rec, Artifact],
) -> None:
    model, artifact = served
    assert artifact.manifest["streaming"] is False
    assert artifact.receptive_field == WINDOW == receptive_field(model.config)
    plain, padded = (Engine(artifact, device="cpu", threads=1, pad=pad) for pad in (False, True))
    by_method = {"attention": additive_attention, "attention_rollout": history_rollout, "gradient": gradient_shares}
    method = METHODS.get(model.config.encoder, "gradient")
    for n in (1, 5, WINDOW + 3):
        events = history(n, n)
        kept, seen = job(events), encoder_input(events, WINDOW, artifact.vocabulary)
        want = by_method[method](model, seen).numpy()
        for engine in (plain, padded):
            got = engine.explain(kept.events, from_start=kept.from_start)
            assert got.method == method
            assert len(got.weight) == min(n, WINDOW)
            shares = np.append(got.start, got.weight)
            assert shares[-len(want) :] == pytest.approx(want, abs=2e-2 if method == "gradient" else 1e-4)
            assert shares.sum() == pytest.approx(1.0, abs=1e-4)
            assert got.h == pytest.approx(_torch_h(model, artifact, events), abs=1e-4)


def test_a_state_decodes_and_takes_no_event(served: tuple[GPT4Rec, Artifact]) -> None:
    engine = Engine(served[1], device="cpu", threads=1)
    [state] = engine.encode([job(history(3, 6))])
    assert isinstance(state, EncoderState) and not state.extends
    again, refused = engine.encode([job(history(3, 0), state), job(history(3, 1), state)])
    assert again is state
    assert isinstance(refused, ModelError)


def test_it_passes_the_check_that_comes_before_a_model_is_served(served: tuple[GPT4Rec, Artifact]) -> None:
    canary.check(Engine(served[1], device="cpu", threads=1))


def test_a_stored_state_is_the_hidden_state_alone(served: tuple[GPT4Rec, Artifact]) -> None:
    engine = Engine(served[1], device="cpu", threads=1)
    [state] = engine.encode([job(history(3, 6))])
    assert isinstance(state, EncoderState)
    packed = state_blob.pack(VersionedState.of(state, "0" * 16, 5.0), engine.state_layout)
    read = state_blob.unpack(packed, engine.state_layout)
    assert read is not None and read.state is None
    assert (read.h == state.h).all()
    assert len(packed) <= 4 * len(state.h) + 72  # header and checksum


def test_the_engine_warms_up_and_lists_for_nobody_and_for_long_histories(served: tuple[GPT4Rec, Artifact]) -> None:
    engine = Engine(served[1], device="cpu", threads=1)
    engine.warm_up()
    unknown = engine.artifact.vocabulary.context.encode({})
    for n in (0, 1, WINDOW, 3 * WINDOW):
        request = ListRequest(context=unknown, gap_ms=GAP_UNKNOWN, decoding=Decoding("beam"), k=10)
        [result] = engine.run([Job(encode=job(history(n, n)), request=request)])
        assert not isinstance(result, Exception)
        assert len(set(result.decoded.items.tolist())) == 10


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", NAMES)
def test_every_node_has_a_cuda_kernel_for_its_types(tmp_path: Path, name: str, dtype: GraphDtype) -> None:
    model = a_network(name)
    write_history_explainer(model.config, weights_of(model), tmp_path / "explainer.onnx", dtype)
    assert missing_kernels(onnx.load(tmp_path / "explainer.onnx")) == []
    write_history_encoder(model.config, weights_of(model), tmp_path / "encoder.onnx", dtype)
    graph = onnx.load(tmp_path / "encoder.onnx")
    assert missing_kernels(graph) == []
    assert "double" not in value_types(graph).values()
    assert [(entry.domain, entry.version <= 23) for entry in graph.opset_import] == [("", True)]
    assert not {node.op_type for node in graph.graph.node} & {"Loop", "If", "Scan"}


@pytest.mark.parametrize(("name", "dtype"), [*((name, "float16") for name in NAMES), ("bert4rec", "int8")])
def test_graphs_that_round_stay_within_their_tolerance(tmp_path: Path, name: str, dtype: GraphDtype) -> None:
    model = random_network(encoder=name, window=WINDOW, scale=0.5)
    artifact = Artifact.open(write_artifact(tmp_path, random_parts(model), dtype))
    engine = Engine(artifact, device="cpu", threads=1)
    for events in (history(n, n) for n in (1, 5, WINDOW + 9)):
        [state] = engine.encode([job(events)])
        assert isinstance(state, EncoderState)
        assert state.h == pytest.approx(_torch_h(model, artifact, events), abs=10 * TOLERANCE[dtype])
