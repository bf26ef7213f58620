"""The graph of an encoder that attends among an event's features equals the network, for exported and for new items."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import orjson
import pytest
import torch

from export import artifact_writer
from export.artifact_writer import Parts
from export.graphs.graph_writer import GraphDtype, graph_shape
from export.graphs.history_encoder import write_history_encoder
from export.graphs.history_explainer import write_history_explainer
from export.parity_gate import TOLERANCE, Probe
from model.network.gpt4rec import GPT4Rec
from model.reference.attention_rollout import history_rollout
from service.artifact.artifact import Artifact
from service.artifact.features import EventArrays
from service.artifact.graphs import encoder_interface
from service.artifact.items.item_attributes import AttributeVocabulary, attribute_names
from service.artifact.manifest import ArtifactFileError
from service.catalogue.updates import CatalogueUpdates
from service.engine.encoder_state import EncoderState
from service.engine.engine import Engine
from service.engine.jobs import EncodeJob
from tests.support.artifacts import random_parts, write_artifact
from tests.support.histories import encoder_input, random_history
from tests.support.networks import random_network, weights_of
from tests.unit.export.graphs.test_graph_interface import interface_of
from tests.unit.export.graphs.test_graph_kernels import missing_kernels, value_types

WINDOW, N_ITEMS = 12, 40
# The brand y is unknown, so some items have fewer attributes than others; few have as many as there are slots.
NAMES = ("category:a", "category:b", "category:c", "category:d", "brand:x")


def parts_with_attributes(scale: float = 1.5) -> Parts:
    model = random_network(
        encoder="encoder_decoder", window=WINDOW, scale=scale, attribute_slots=3, n_attribute_rows=len(NAMES) + 1
    )
    parts, vocabulary = random_parts(model), AttributeVocabulary(NAMES, 3)
    items = [parts.catalogue.item(n) for n in range(N_ITEMS)]
    rows = vocabulary.table([attribute_names(item.category, item.brand, item.attributes) for item in items])
    assert model.attributes is not None and (rows > 0).sum(axis=1).min() < (rows > 0).sum(axis=1).max() == 3
    model.attributes.set_rows(torch.from_numpy(rows))
    return replace(parts, attributes=vocabulary)


@pytest.fixture(scope="module")
def parts() -> Parts:
    return parts_with_attributes()


@pytest.fixture(scope="module")
def artifact(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """The artefact, which has passed the gate."""
    probes = [Probe(history(n)) for n in (0, 1, 5, WINDOW + 9)]
    folder, result = artifact_writer.export(parts, tmp_path_factory.mktemp("artifact"), "float32", probes)
    assert result.failures == []
    return Artifact.open(folder)


def history(n: int) -> EventArrays:
    return random_history(np.random.default_rng(n), n, N_ITEMS)


def torch_h(model: GPT4Rec, seen: EventArrays) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    item, kind, time_ms = (torch.from_numpy(a)[None] for a in (seen.item, seen.type, seen.time_ms))
    with torch.no_grad():
        h: np.ndarray[tuple[int], np.dtype[np.float32]] = model.encode(item, kind, time_ms, torch.tensor([len(seen)]))[
            0
        ].numpy()
    return h


def encoded(engine: Engine, *histories: EventArrays) -> list[np.ndarray[tuple[int], np.dtype[np.float32]]]:
    jobs = [EncodeJob(events=e.after(max(0, len(e) - WINDOW)), from_start=len(e) <= WINDOW) for e in histories]
    states = engine.encode(jobs)
    assert all(isinstance(state, EncoderState) for state in states)
    return [state.h for state in states if isinstance(state, EncoderState)]


@pytest.mark.parametrize("pad", [False, True])
def test_onnx_equals_torch_and_so_does_the_explainer(parts: Parts, artifact: Artifact, pad: bool) -> None:
    engine, histories = Engine(artifact, device="cpu", threads=1, pad=pad), [history(n) for n in range(1, WINDOW + 3)]
    for events, h in zip(histories, encoded(engine, *histories), strict=True):
        seen = encoder_input(events, WINDOW, artifact.vocabulary)
        assert h == pytest.approx(torch_h(parts.model, seen), abs=1e-4)
    got = engine.explain(histories[6], from_start=True)
    seen = encoder_input(histories[6], WINDOW, artifact.vocabulary)
    assert np.append(got.start, got.weight) == pytest.approx(history_rollout(parts.model, seen).numpy(), abs=1e-4)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_graphs_that_round_stay_within_their_tolerance(tmp_path: Path, dtype: GraphDtype) -> None:
    parts = parts_with_attributes(scale=0.5)
    artifact = Artifact.open(write_artifact(tmp_path, parts, dtype))
    histories = [history(n) for n in (1, 5, WINDOW + 9)]
    for events, h in zip(histories, encoded(Engine(artifact, device="cpu", threads=1), *histories), strict=True):
        wanted = torch_h(parts.model, encoder_input(events, WINDOW, artifact.vocabulary))
        assert h == pytest.approx(wanted, abs=10 * TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_every_node_has_a_cuda_kernel_and_the_graph_has_its_interface(
    parts: Parts, tmp_path: Path, dtype: GraphDtype
) -> None:
    config, weights = parts.model.config, weights_of(parts.model)
    write_history_encoder(config, weights, tmp_path / "encoder.onnx", dtype)
    write_history_explainer(config, weights, tmp_path / "explainer.onnx", dtype)
    assert interface_of(tmp_path / "encoder.onnx") == encoder_interface.history_encoder(graph_shape(config, dtype))
    for name in ("encoder", "explainer") if dtype != "int8" else ():
        graph = onnx.load(tmp_path / f"{name}.onnx")
        assert missing_kernels(graph) == []
        assert "double" not in value_types(graph).values()


def test_a_new_item_has_its_attributes_and_unknown_ones_are_none(
    parts: Parts, artifact: Artifact, tmp_path: Path
) -> None:
    engine, file = Engine(artifact, device="cpu", threads=1), tmp_path / "updates.jsonl"
    about: list[dict[str, object]] = [
        {"category": ["a"], "brand": "x"},
        {"category": ["d"], "brand": "x"},
        {"category": ["never seen"], "brand": "never seen"},
        {},
    ]
    lines = [orjson.dumps({"item_id": f"n{n}", "like": ["i5"], **one}) for n, one in enumerate(about)]
    file.write_bytes(b"\n".join([*lines, b""]))
    updates = CatalogueUpdates(artifact, file, engine.update)
    first = artifact.catalogue.first_new
    events = [EventArrays(np.array([3, first + n]), np.array([1, 1]), np.array([0, 1000])) for n in range(4)]
    assert updates.poll()
    updates.rebuild()
    a, d, strange, bare = encoded(engine, *events)
    assert np.abs(a - d).max() > 1e-3
    assert strange == pytest.approx(bare, abs=1e-6)
    rows = engine.artifact.item_attributes
    assert rows is not None and rows[first:].tolist() == [[1, 5, 0], [4, 5, 0], [0, 0, 0], [0, 0, 0]]
    assert rows[:first].tolist() == parts.model.attributes.table().tolist()  # type: ignore[union-attr]


def test_an_attribute_that_has_no_name_is_refused_when_the_artefact_is_opened(parts: Parts, tmp_path: Path) -> None:
    folder = write_artifact(tmp_path, replace(parts, attributes=AttributeVocabulary(NAMES[:2], 3)))
    with pytest.raises(ArtifactFileError, match=r"items\.npz cannot be used.*no name"):
        Artifact.open(folder)
