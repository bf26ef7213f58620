"""Encoders that read the user's features, and what a decoder makes of a context: graphs equal the network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from export import artifact_writer
from export.graphs.user_encoder import WRITERS
from export.parity_gate import Probe, full_encode
from model.network.encoders.registry import receptive_field
from model.network.gpt4rec import GPT4Rec
from model.reference.additive_attention import gradient_shares
from service.artifact.array_types import IntArray
from service.artifact.artifact import Artifact
from service.artifact.features import EventArrays
from service.engine.encoder_state import EncoderState
from service.engine.engine import Engine
from service.engine.jobs import EncodeJob
from tests.support.artifacts import random_parts
from tests.support.histories import random_history
from tests.support.networks import random_network
from tests.unit.export.graphs.test_graph_kernels import missing_kernels

WINDOW, N_ITEMS = 4, 40
OLD, YOUNG, UNKNOWN = (np.array([row, 0, 0], np.int64) for row in (1, 2, 0))
# The slots of the artefact are age, scene and category; rows 3 to 5 are categories, which stand for scenes here.
PROMPTS: dict[str, Any] = {"prompts": 3, "prompt_slot": 2, "prompt_first": 3, "prompt_rows": 3}


def history(n: int) -> EventArrays:
    return random_history(np.random.default_rng(n), n, N_ITEMS)


def exported(folder: Path, dtype: Any = "float32", **network: Any) -> tuple[GPT4Rec, Artifact]:
    """A network, and its artefact that has passed the gate."""
    model = random_network(window=WINDOW, scale=1.0, n_fields=1, **network)
    if model.prompts is not None:
        with torch.no_grad():
            model.prompts.vectors.mul_(20)  # so that they matter
    probes = [Probe(history(n), context) for n in (0, 1, 7, 15) for context in ({"age": "old"}, {"category": "b"})]
    place, result = artifact_writer.export(random_parts(model), folder, dtype, probes)
    assert result.failures == []
    return model, Artifact.open(place)


@pytest.fixture(scope="module", params=[("injected", "float32"), ("prefix", "float32"), ("prefix", "int8")])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[GPT4Rec, Artifact]:
    encoder, dtype = request.param
    user = "mlp" if encoder == "injected" else "sum"
    return exported(tmp_path_factory.mktemp("a"), dtype, encoder=encoder, user_vector=user)


def job(model: GPT4Rec, events: EventArrays, context: IntArray | None) -> EncodeJob:
    most = receptive_field(model.config)
    kept = events.after(max(0, len(events) - most))
    return EncodeJob(events=kept, from_start=len(events) <= most, context=context)


def test_every_user_in_a_batch_is_encoded_with_their_own_features(served: tuple[GPT4Rec, Artifact]) -> None:
    model, artifact = served
    most = receptive_field(model.config)
    asked = [(history(n), user) for n in (0, 1, 3, most, most + 5) for user in (OLD, YOUNG, UNKNOWN)]
    wanted = []
    for events, user in asked:
        whole = artifact.vocabulary.with_start(events)
        seen = whole if len(events) < most else whole.after(len(whole) - most)
        wanted.append(full_encode(model, seen, user).numpy())
    tolerance = 1e-4 if artifact.manifest["dtype"] == "float32" else 0.3
    for pad in (False, True):
        engine = Engine(artifact, device="cpu", threads=1, pad=pad)
        together = engine.encode([job(model, events, user) for events, user in asked])
        for (events, user), state, h in zip(asked, together, wanted, strict=True):
            alone = engine.encode([job(model, events, user if user.any() else None)])[0]
            assert isinstance(state, EncoderState)
            assert isinstance(alone, EncoderState)
            assert state.h == pytest.approx(h, abs=tolerance)
            assert alone.h == pytest.approx(h, abs=tolerance)


def test_features_change_what_the_encoder_makes_of_a_history(served: tuple[GPT4Rec, Artifact]) -> None:
    model, artifact = served
    engine = Engine(artifact, device="cpu", threads=1)
    found = engine.encode([job(model, history(9), user) for user in (OLD, YOUNG, UNKNOWN)])
    assert len({state.h.round(3).tobytes() for state in found if isinstance(state, EncoderState)}) == 3
    assert artifact.manifest["encoder_reads_features"]
    assert not artifact.streaming


def test_a_state_is_explained_by_the_gradient_of_its_user(served: tuple[GPT4Rec, Artifact]) -> None:
    model, artifact = served
    most, exact = receptive_field(model.config), artifact.manifest["dtype"] == "float32"
    found = []
    for n in (2, most + 3):
        for user in (OLD, YOUNG):
            kept = job(model, history(n), user)
            got = Engine(artifact, device="cpu", threads=1).explain(
                kept.events, from_start=kept.from_start, context=user
            )
            assert got.method == "gradient"
            shares = np.append(got.start, got.weight)
            assert shares.sum() == pytest.approx(1.0, abs=1e-4)
            seen = artifact.vocabulary.with_start(kept.events) if kept.from_start else kept.events
            want = gradient_shares(model, seen, user).numpy()
            if exact:
                assert shares[-len(want) :] == pytest.approx(want, abs=0.05)
                h = full_encode(model, artifact.vocabulary.with_start(history(n)), user).numpy()
                assert n > most or got.h == pytest.approx(h, abs=1e-4)
            found.append(shares)
    assert not np.allclose(found[0], found[1], atol=1e-3)


@pytest.mark.parametrize("dtype", ["float32", "float16"])  # as those of other encoders: int8 is for CPUs
def test_a_gpu_has_every_kernel_of_these_graphs(tmp_path: Path, dtype: Any) -> None:
    for encoder in WRITERS:
        model = random_network(encoder=encoder, n_fields=1, user_vector="mlp", **PROMPTS)
        artifact_writer.write(random_parts(model), tmp_path, dtype)
        for graph in ("encoder", "explainer", "decoder", "sampler"):
            path = tmp_path / f"{graph}.onnx"
            assert missing_kernels(onnx.load(path)) == []


def test_soft_prompts_and_the_mlp_of_the_context_are_decoded_as_in_torch(tmp_path: Path) -> None:
    """The gate compares lists with and without a value that has prompts."""
    model, _ = exported(tmp_path, user_vector="mlp", **PROMPTS)
    h = torch.randn(1, model.config.d_model)

    def query(category: int) -> torch.Tensor:
        with torch.no_grad():
            q: torch.Tensor = model.query(h, torch.tensor([[0, 0, category]]), torch.tensor([-1]))
        return q

    assert model.prompts is not None
    with torch.no_grad():
        read = model.prompts(h, torch.tensor([[2, 1, 0]]))
    assert torch.equal(read, h)  # unknown, whatever else is known
    assert not torch.allclose(query(3), query(4))


def test_soft_prompts_are_what_plain_loops_make_of_them() -> None:
    model = random_network(**PROMPTS)
    prompts = model.prompts
    assert prompts is not None
    h, context = torch.randn(4, model.config.d_model), torch.tensor([[0, 0, row] for row in (0, 3, 4, 5)])
    with torch.no_grad():
        found, normed = prompts(h, context), prompts.norm(h)
        for n, row in enumerate(context[:, 2].tolist()):
            wanted = h[n].clone()
            if row:
                vectors = prompts.vectors[row - 3]
                weights = np.exp([float(normed[n] @ p) / model.config.d_model**0.5 for p in vectors])
                for weight, p in zip(weights / weights.sum(), vectors, strict=True):
                    wanted += float(weight) * p
            assert found[n] == pytest.approx(wanted.numpy(), abs=1e-5)
