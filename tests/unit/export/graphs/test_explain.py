"""The explainer: the shares of a history's events in its hidden state."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from export import artifact_writer
from export.artifact_writer import ParityError, Parts, write
from export.graphs.graph_writer import GraphDtype
from export.parity_gate import full_encode
from export.publish import seal
from model.network.config import StateDtype
from model.network.gpt4rec import GPT4Rec
from model.reference.attention_rollout import attention_rollout
from service.artifact.artifact import Artifact
from service.artifact.features import EventArrays
from service.artifact.manifest import EXPLAINER, ArtifactFileError
from service.common.errors import ModelError
from service.engine.encoder_state import EncoderState
from service.engine.engine import Engine
from service.engine.interface import Explaining
from service.engine.jobs import EncodeJob
from service.engine.placement import Placement
from tests.support.artifacts import random_parts, write_artifact
from tests.support.fakes import FakeEngine
from tests.support.histories import random_history
from tests.support.networks import random_network
from tests.unit.export.test_export import change_weight, probes

TOLERANCE = {"float32": 1e-4, "float16": 5e-3, "int8": 5e-2}


def opened(folder: Path, *, pad: bool = False) -> Engine:
    return Engine(Artifact.open(folder), device="cpu", threads=1, pad=pad)


def rolled_out(model: GPT4Rec, engine: Engine, events: EventArrays, *, from_start: bool = True) -> np.ndarray:
    if from_start:
        events = engine.artifact.vocabulary.with_start(events)
    return attention_rollout(model, *(torch.from_numpy(a) for a in (events.item, events.type, events.time_ms))).numpy()


@pytest.mark.parametrize("state_dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize("pad", [False, True], ids=["exact", "padded"])
def test_onnx_equals_torch_in_what_each_event_carried(tmp_path: Path, state_dtype: StateDtype, pad: bool) -> None:
    model = random_network(seed=3, state_dtype=state_dtype)
    engine = opened(write_artifact(tmp_path, random_parts(model)), pad=pad)
    rng = np.random.default_rng(0)
    for n in (1, 2, 7, 8, 9, 40):
        events = random_history(rng, n, 40)
        why = engine.explain(events, from_start=True)
        want = rolled_out(model, engine, events)
        np.testing.assert_allclose([why.start, *why.weight], want, atol=TOLERANCE[state_dtype])
        hidden = full_encode(model, engine.artifact.vocabulary.with_start(events)).numpy()
        np.testing.assert_allclose(why.h, hidden, atol=TOLERANCE[state_dtype])


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_shares_add_up_to_one_and_the_hidden_state_is_the_encoders(tmp_path: Path, dtype: GraphDtype) -> None:
    engine = opened(write_artifact(tmp_path, dtype=dtype))
    for n in (1, 5, 60):
        events = random_history(np.random.default_rng(n), n, 40)
        why = engine.explain(events, from_start=True)
        assert why.start + why.weight.sum() == pytest.approx(1.0, abs=1e-4)
        assert why.weight.min() >= 0.0
        assert len(why.weight) == n
        state = engine.encode([EncodeJob(events=events, from_start=True)])[0]
        assert isinstance(state, EncoderState)
        np.testing.assert_allclose(why.h, state.h, atol=2e-2)


def test_events_beyond_the_receptive_field_carry_nothing(random_artifact: Path) -> None:
    engine = opened(random_artifact)
    c = engine.artifact.network
    why = engine.explain(random_history(np.random.default_rng(0), 40, 40), from_start=True)
    reach = c["layers"] * c["window"] + 1
    assert (why.weight[:-reach] == 0.0).all()
    assert why.start == 0.0


def test_without_a_start_token_all_of_it_is_the_events(tmp_path: Path) -> None:
    model = random_network()
    engine = opened(write_artifact(tmp_path, random_parts(model)))
    events = random_history(np.random.default_rng(0), 6, 40)
    why = engine.explain(events, from_start=False)
    assert why.start == 0.0
    np.testing.assert_allclose(why.weight, rolled_out(model, engine, events, from_start=False), atol=1e-4)


def test_an_empty_history_is_the_start_token_alone(random_artifact: Path) -> None:
    why = opened(random_artifact).explain(random_history(np.random.default_rng(0), 0, 40), from_start=True)
    assert (len(why.weight), why.start) == (0, 1.0)


def test_an_older_artefact_is_served_without_an_explainer(tmp_path: Path) -> None:
    parts, folder = random_parts(), tmp_path / "older"
    folder.mkdir()
    write(parts, folder, "float32")
    (folder / EXPLAINER).unlink()
    seal(folder, artifact_writer._manifest(parts, "float32", folder), parts.name)
    engine = opened(folder)
    assert isinstance(engine, Explaining)
    assert not engine.explains
    with pytest.raises(ModelError, match="export the model again"):
        engine.explain(random_history(np.random.default_rng(0), 3, 40), from_start=True)
    assert not isinstance(FakeEngine(), Explaining)


@pytest.mark.parametrize("damage", ["gone", "short", "changed"])
def test_bad_artefact_is_refused_for_its_explainer_too(random_artifact: Path, tmp_path: Path, damage: str) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(random_artifact, broken)
    file = broken / EXPLAINER
    raw = bytearray(file.read_bytes())
    if damage == "gone":
        file.unlink()
    elif damage == "short":
        file.write_bytes(raw[:-1])
    else:
        raw[len(raw) // 2] ^= 1
        file.write_bytes(raw)
    with pytest.raises(ArtifactFileError, match=EXPLAINER):
        Artifact.open(broken)


def test_an_explainer_that_differs_from_the_network_publishes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sabotaged(parts: Parts, folder: Path, dtype: GraphDtype) -> None:
        write(parts, folder, dtype)
        change_weight(folder / EXPLAINER, "encoder.blocks.1.query.weight.T")
        seal(folder, artifact_writer._manifest(parts, dtype, folder), parts.name)

    monkeypatch.setattr(artifact_writer, "write", sabotaged)
    parts = random_parts(random_network(scale=6.0))
    with pytest.raises(ParityError, match="attention shares differ"):
        artifact_writer.export(parts, tmp_path, "float32", probes(parts.model.config.n_items))
    assert list(tmp_path.iterdir()) == []


def test_the_explainer_holds_the_encoders_weights(random_artifact: Path) -> None:
    encoder, explainer = (
        {
            t.name: t.raw_data
            for t in onnx.load(random_artifact / name).graph.initializer
            if "." in t.name and "float" not in t.name
        }
        for name in ("encoder.onnx", EXPLAINER)
    )
    assert set(encoder) == set(explainer)
    assert all(encoder[name] == raw for name, raw in explainer.items())


def test_a_graph_of_numbers_that_are_none_is_an_error(tmp_path: Path) -> None:
    parts = random_parts()
    with torch.no_grad():
        parts.model.event_type.weight.fill_(float("nan"))
    engine = opened(write_artifact(tmp_path, replace(parts, model=parts.model)))
    with pytest.raises(ModelError, match="not finite"):
        engine.explain(random_history(np.random.default_rng(0), 3, 40), from_start=True)


def test_the_graph_is_opened_at_the_first_question_only(random_artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = opened(random_artifact)
    opens: list[Path] = []

    class Noted:
        def __init__(self, path: Path, at: Placement) -> None:  # noqa: ARG002
            opens.append(path)
            raise ModelError("noted")

    monkeypatch.setattr("service.engine.encode.explainer.GraphSession", Noted)
    assert opens == []
    with pytest.raises(ModelError, match="noted"):
        engine.explain(random_history(np.random.default_rng(0), 3, 40), from_start=True)
    assert [path.name for path in opens] == [EXPLAINER]
