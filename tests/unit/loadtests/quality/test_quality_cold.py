"""Items without events, from their texts to the lists they are in: one command, asked through the exported graphs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
import pytest
import torch
from typer.testing import CliRunner

from loadtests.common import results
from loadtests.draw.quality_cold import cold as drawn
from loadtests.quality import cold, cold_trial
from loadtests.quality.cold_live import describe, live_ranker
from loadtests.quality.cold_parts import PARTS
from loadtests.quality.ranks import DECODING
from loadtests.quality.strategies import artifact_of
from model.data.dataset import Dataset, Sequences
from model.evaluation.evaluate import Histories, evaluate
from model.evaluation.rankers import engine_ranker
from model.texts.sentence_vectors import TextError, find_weights
from model.training.run_folder import Run
from service.artifact.artifact import Artifact
from service.engine.engine import Engine
from tests.support.data_builders import tiny_dataset
from tests.support.figures import keep_in

# Of the seed 0 alone, so that it is not taken for the published measurement.
TINY = "strict tiny --minutes 1 --seeds 0"


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a measurement on a tiny log; figures go to a folder of the test."""
    try:
        find_weights()
    except TextError as error:
        pytest.skip(str(error))
    keep_in(tmp_path, monkeypatch)
    monkeypatch.setattr(cold_trial, "EPOCHS", 2)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    tiny_dataset(60, 30).save(tmp_path / "log")
    invoke(tmp_path)
    [folder] = (tmp_path / "work").iterdir()
    return folder


def invoke(folder: Path, *options: str) -> None:
    arguments = ["--data", str(folder / "log"), "--work", str(folder / "work"), "--seeds", "0", "--minutes", "1"]
    found = CliRunner().invoke(cold.app, [*arguments, *options])
    if found.exception is not None:
        raise found.exception


def test_items_without_events_are_trained_without_found_by_their_texts_and_drawn(
    measured: Path, tmp_path: Path
) -> None:
    found = results.load(cold.NAME, tmp_path)
    assert found is not None
    part = found["parts"][TINY]
    assert set(part["means"]) == {*cold_trial.WAYS}
    assert part["questions"]["warm"] > part["questions"]["cold"] >= part["items"]["cold"] > 0
    of_models, of_texts = len(cold_trial.VARIANTS) * len(PARTS), 2
    assert len(part["gained"]) == (of_models + of_texts) * len(cold_trial.MEASURES)
    rows = {row["criterion"]: row for row in results.read_rows(tmp_path / "quality.json")}
    limited = {name for name, row in rows.items() if row["limit"]}
    assert limited == {
        f"{TINY}: {measure} of {asked}, {name} against id: {what}"
        for name in ("content", "like")
        for measure, asked, what in (
            ("recall@10", "cold items", "chance of as much without a gain"),
            ("recall@10", "warm items", "low end of what is gained, share of its figure"),
            ("ndcg@10", "warm items", "low end of what is gained, share of its figure"),
        )
    }
    text = drawn(found)
    assert "| texts in ids and embeddings | cold items |" in text
    assert "| ids alone | warm items |" in text
    assert "| ids, new ones by like texts | cold items |" in text

    held_out = set(cold_trial.cold_items(Dataset.load(tmp_path / "log"), 0.1))
    assert held_out
    assert not held_out & set(Dataset.load(measured / "data").events["item_id"])
    _content_is_what_an_unseen_item_is_served_by(measured / "content-0", held_out)
    _new_items_come_into_lists_as_the_held_out_ones(measured / "id-0", Dataset.load(tmp_path / "log"), held_out)

    weights = {file: file.stat().st_mtime_ns for file in measured.rglob("*.safetensors")}
    invoke(tmp_path)
    assert {file: file.stat().st_mtime_ns for file in measured.rglob("*.safetensors")} == weights
    _another_share_is_another_measurement(tmp_path, measured)


def _another_share_is_another_measurement(folder: Path, measured: Path) -> None:
    """It has a folder of its own. What is measured there is read: each warm item was found in the first place."""
    of_share = measured.with_name(measured.name.replace("-0.1", "-0.2"))
    of_share.mkdir()
    for file in measured.glob("*.json"):
        figures = orjson.loads(file.read_bytes())
        figures["of_users"]["warm"]["recall@10"] = [1.0] * figures["questions"]["warm"]
        figures["figures"]["warm"]["recall@10"] = 1.0
        (of_share / file.name).write_bytes(orjson.dumps(figures))
    before = results.load(cold.NAME, folder)
    invoke(folder, "--share", "0.2")
    found = results.load(cold.NAME, folder)
    assert before is not None
    assert found is not None
    assert found["parts"][TINY] == before["parts"][TINY]
    assert set(found["parts"]) == {TINY, f"{TINY} --share 0.2"}
    means = found["parts"][f"{TINY} --share 0.2"]["means"]
    assert {means[name]["warm"]["recall@10"]["mean"] for name in cold_trial.VARIANTS} == {1.0}
    assert not list(of_share.rglob("*.safetensors"))


def _content_is_what_an_unseen_item_is_served_by(folder: Path, held_out: set[str]) -> None:
    run, artifact = Run.open(folder), Artifact.open(artifact_of(folder))
    model = run.model()
    gate = model.of_content
    assert gate is not None
    unseen = [artifact.vocabulary.item_index[item] for item in sorted(held_out)]
    assert not gate.seen[unseen].any()
    with torch.no_grad():
        folded = model.item_table().numpy()
        tokens = sum(table(model.codes[unseen, level]) for level, table in enumerate(model.token))
        content = (gate.project(gate.vectors[unseen]) + tokens).numpy()
    np.testing.assert_allclose(folded[unseen], content, atol=1e-6)
    np.testing.assert_allclose(artifact.item_table[: len(folded)], folded[: len(artifact.item_table)], atol=1e-6)

    split = run.split(run.dataset(folder.parent / "data"))
    ranker = engine_ranker(Engine.open(artifact.folder, device="cpu", threads=1), DECODING)
    firsts = evaluate({"content": ranker}, split, samples=1).systems["content"].lists[:, :3]
    assert set(unseen) & set(firsts.ravel().tolist()), "of 30 items everyone comes into a list of 20"


def _new_items_come_into_lists_as_the_held_out_ones(folder: Path, whole: Dataset, held_out: set[str]) -> None:
    run, artifact = Run.open(folder), Artifact.open(artifact_of(folder))
    reduced = run.dataset(folder.parent / "data")
    engine = Engine.open(artifact.folder, device="cpu", threads=1)
    meant = describe(engine, whole, reduced, run.split(reduced).train, sorted(held_out), folder.parent / "data")
    unseen = {artifact.vocabulary.item_index[item] for item in held_out}
    assert set(meant[artifact.catalogue.first_new :].tolist()) == unseen
    ranker = live_ranker(engine, DECODING, meant)
    firsts = evaluate({"live": ranker}, run.split(reduced), samples=1).systems["live"].lists[:, :3]
    assert unseen & set(firsts.ravel().tolist())


def test_nearest_texts_are_those_like_the_mean_of_the_history() -> None:
    vectors = np.array([[1, 0], [0, 1], [0.8, 0.6], [0.6, 0.8], [-1, 0], [0, 0]], np.float32)
    item, nothing = np.array([0, 0, 1]), np.zeros(3, np.int64)
    log = Sequences(["u", "v"], [f"i{i}" for i in range(6)], np.array([0, 1, 3]), item, nothing, nothing)
    lists = cold_trial.nearest_ranker(vectors)(Histories(np.array([0, 1]), np.array([1, 3]), log))
    assert lists[0, :6].tolist() == [2, 3, 1, 5, 4, -1]
    assert lists[1, :5].tolist() == [2, 3, 5, 4, -1]  # both items of the history as near: (.5, .5)
