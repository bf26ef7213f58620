"""The parity gate, and the commands from a trained run to the figures of its artefact."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from typer.testing import CliRunner

from export import artifact_writer
from export.artifact_writer import ParityError, Parts, write
from export.cli import app as export_app
from export.from_run import export_run
from export.graphs.graph_writer import GraphDtype
from export.parity_gate import Probe, Quality
from export.publish import seal
from model.cli.train_evaluate import evaluate_app
from model.training.config import TrainConfig
from model.training.trainer import Trainer
from service.artifact.artifact import Artifact
from service.artifact.features import GAP_UNKNOWN, EventArrays
from service.artifact.manifest import LATEST
from tests.support.artifacts import random_parts
from tests.support.data_builders import tiny_dataset
from tests.support.histories import random_history
from tests.support.networks import random_network


def probes(n_items: int) -> list[Probe]:
    rng = np.random.default_rng(0)
    found = []
    for n in (0, 1, 4, 11, 30):
        time_ms = np.cumsum(rng.integers(0, 10**7, n)) + 1_600_000_000_000
        events = EventArrays(rng.integers(0, n_items + 1, n), rng.integers(0, 6, n), time_ms)
        found.append(Probe(events, {"age": "old"} if n % 2 else {}, 5000 if n > 4 else GAP_UNKNOWN))
    return found


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_good_export_passes_the_gate_and_says_so_in_its_manifest(tmp_path: Path, dtype: GraphDtype) -> None:
    parts = random_parts()
    folder, result = artifact_writer.export(parts, tmp_path, dtype, probes(parts.model.config.n_items))
    assert result.failures == []
    manifest = Artifact.open(folder).manifest
    assert manifest["parity"]["log_prob"] <= manifest["parity"]["tolerance"]
    assert manifest["dtype"] == dtype


@pytest.mark.parametrize("state_dtype", ["float32", "float16", "int8"])
def test_the_state_may_be_stored_in_any_type_without_failing_the_gate(tmp_path: Path, state_dtype: str) -> None:
    """A key that rounds the other way moves a hidden state by more than float32 graphs are allowed to differ."""
    model = random_network(
        seed=1, n_items=60, sizes=(8, 8), scale=1.5, d_model=64, d_head=32, layers=4, window=30, state_dtype=state_dtype
    )
    rng = np.random.default_rng(0)
    long = [Probe(random_history(rng, n, 60)) for n in (40, 90, 150, 190)]
    _, result = artifact_writer.export(random_parts(model), tmp_path, "float32", long)
    assert result.log_prob < 5e-5


def change_weight(path: Path, name: str) -> None:
    model = onnx.load(path)
    tensor = next(t for t in model.graph.initializer if t.name == name)
    array = numpy_helper.to_array(tensor).copy()
    array[0, 0] += 2.0  # one entry: a whole row would shift all logits alike
    tensor.CopyFrom(numpy_helper.from_array(array, name))
    onnx.save(model, path)


@pytest.mark.parametrize(
    ("graph", "weight", "complaint"),
    [
        ("decoder.onnx", "level_out.0.weight.T", "log-probabilities differ"),
        ("encoder.onnx", "encoder.blocks.1.down.weight.T", "hidden states differ"),
    ],
)
def test_a_graph_that_differs_from_the_network_publishes_nothing_and_says_what_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, graph: str, weight: str, complaint: str
) -> None:
    def sabotaged(parts: Parts, folder: Path, dtype: GraphDtype) -> None:
        write(parts, folder, dtype)
        change_weight(folder / graph, weight)
        seal(folder, artifact_writer._manifest(parts, dtype, folder), parts.name)

    monkeypatch.setattr(artifact_writer, "write", sabotaged)
    parts = random_parts()
    with pytest.raises(ParityError, match=complaint):
        artifact_writer.export(parts, tmp_path, "float32", probes(parts.model.config.n_items))
    assert list(tmp_path.iterdir()) == []


def test_item_embeddings_of_another_epoch_fail_the_gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = random_parts()
    stale = replace(parts, model=random_parts().model)
    with torch.no_grad():
        stale.model.item.weight.add_(torch.randn_like(stale.model.item.weight) * 0.2)
    monkeypatch.setattr(artifact_writer, "write", lambda _, folder, dtype: write(stale, folder, dtype))
    with pytest.raises(ParityError):
        artifact_writer.export(parts, tmp_path, "float32", probes(parts.model.config.n_items))


@pytest.mark.parametrize(("lost", "passes"), [(0.0, True), (0.004, True), (0.006, False), (-0.006, False)])
def test_graphs_that_round_must_keep_the_ndcg_of_the_float32_ones(tmp_path: Path, lost: float, passes: bool) -> None:
    parts, quality = random_parts(), Quality(lambda _: 0.2 * (1 - lost), 0.2, 10_000)
    if passes:
        folder, _ = artifact_writer.export(parts, tmp_path, "float16", probes(40), quality)
        parity = Artifact.open(folder).manifest["parity"]
        assert (parity["ndcg_at_10"], parity["ndcg_at_10_float32"]) == (0.2 * (1 - lost), 0.2)
        return
    with pytest.raises(
        ParityError, match=r"NDCG@10 on validation is 0\.\d+ and 0\.2000 through the float32 graphs \([+-]0\.6%\)"
    ):
        artifact_writer.export(parts, tmp_path, "float16", probes(40), quality)
    assert list(tmp_path.iterdir()) == []


def test_an_ndcg_that_is_no_number_fails_and_float32_graphs_are_not_asked(tmp_path: Path) -> None:
    quality = Quality(lambda _: float("nan"), 0.2, 10_000)
    with pytest.raises(ParityError, match="NDCG@10"):
        artifact_writer.export(random_parts(), tmp_path, "int8", probes(40), quality)
    artifact_writer.export(random_parts(), tmp_path, "float32", probes(40), quality)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(data, run) of a tiny model."""
    home = tmp_path_factory.mktemp("run")
    dataset = tiny_dataset(users=40, items=30, seed=0)
    dataset.save(home / "data")
    config = TrainConfig.build(None, ["size=tiny", "max_epochs=2", "batch_tokens=256", "max_length=40"])
    Trainer(dataset, home / "data", home / "run", config).fit()
    return home / "data", home / "run"


def test_export_then_evaluate_writes_the_figures_of_the_contract(trained: tuple[Path, Path], tmp_path: Path) -> None:
    data, run = trained
    exported = CliRunner().invoke(export_app, ["--run", str(run), "--out", str(tmp_path / "artifacts"), "--json"])
    assert exported.exit_code == 0, exported.output
    report = json.loads(exported.stdout)
    assert Path(report["artifact"]).is_dir()
    assert report["parity"]["log_prob"] <= report["parity"]["tolerance"]

    figures = tmp_path / "figures.json"
    arguments = ["--artifact", str(tmp_path / "artifacts"), "--data", str(data), "--json", str(figures)]
    evaluated = CliRunner().invoke(evaluate_app, arguments)
    assert evaluated.exit_code == 0, evaluated.output
    written = json.loads(figures.read_text("utf-8"))
    assert {"split", "users", "protocol", "systems"} <= set(written)
    assert list(written["systems"]) == ["gpt4rec", "item_cf", "popular"]
    wanted = {"recall@5", "recall@10", "ndcg@5", "ndcg@10", "mrr@10", "coverage@10"}
    for system in written["systems"].values():
        assert wanted <= set(system)
        assert 0.0 <= system["ndcg@10"] <= system["recall@10"] <= 1.0


def test_a_float16_export_is_held_to_the_ndcg_of_float32(trained: tuple[Path, Path], tmp_path: Path) -> None:
    _, run = trained
    _, report = export_run(run, tmp_path, "float16")
    parity = report["parity"]
    assert parity["ndcg_at_10_float32"] > 0
    assert parity["ndcg_at_10"] == pytest.approx(parity["ndcg_at_10_float32"], abs=parity["ndcg_allowed"])
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted([LATEST, report["model_version"]])


def test_few_users_allow_one_of_them_to_trade_the_second_place_for_the_first() -> None:
    assert Quality(lambda _: 0.2, 0.2, 10_000).allowed == pytest.approx(0.001)
    assert Quality(lambda _: 0.2, 0.2, 40).allowed == pytest.approx((1 - 1 / math.log2(3)) / 40)


def test_export_refuses_changed_data(trained: tuple[Path, Path], tmp_path: Path) -> None:
    _, run = trained
    tiny_dataset(users=41, items=30, seed=1).save(tmp_path / "data")
    arguments = ["--run", str(run), "--out", str(tmp_path / "out"), "--data", str(tmp_path / "data")]
    refused = CliRunner().invoke(export_app, arguments)
    assert refused.exit_code == 1
    assert "fingerprints differ" in refused.output.replace("\n", " ")
    assert not (tmp_path / "out").exists()


def test_evaluate_wants_exactly_one_of_artifact_and_run(tmp_path: Path) -> None:
    assert CliRunner().invoke(evaluate_app, ["--data", str(tmp_path)]).exit_code == 2
    both = ["--data", str(tmp_path), "--run", "a", "--artifact", "b"]
    assert CliRunner().invoke(evaluate_app, both).exit_code == 2
    assert CliRunner().invoke(evaluate_app, [*both[:4], "--strategy", "sideways"]).exit_code == 2
