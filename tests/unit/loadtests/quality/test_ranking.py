"""Ranking from a data set to its rows: strict by default, beside heuristics, compared with an older commit."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

import export.from_run as from_run
from loadtests.common import results
from loadtests.draw import quality, quality_summary
from loadtests.quality import before, ranking, ranks
from model.data.dataset import Dataset, sequences
from model.training.config import TrainConfig
from model.training.run_folder import Run, split_of
from tests.support.artifacts import learn_nothing
from tests.support.data_builders import tiny_dataset
from tests.support.figures import keep_in

TINY = ["--set", "size=tiny", "--set", "max_epochs=1", "--set", "tokenizer=atomic"]
LABEL = "strict tiny, max_epochs=1, size=tiny, tokenizer=atomic"


def invoke(app: typer.Typer, *arguments: str) -> None:
    found = CliRunner().invoke(app, arguments)
    if found.exception is not None:
        raise found.exception


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Figures go to the folder of the test, one thread."""
    keep_in(tmp_path, monkeypatch)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    monkeypatch.setattr(from_run, "learn_ranker", learn_nothing)
    return tmp_path / "work"


def test_the_strict_split_is_measured_first_and_compared_with_an_older_commit(work: Path, tmp_path: Path) -> None:
    tiny_dataset(30, 15).save(tmp_path / "log")
    options = ["--data", str(tmp_path / "log"), "--work", str(work), "--seeds", "0", *TINY]
    invoke(ranking.app, *options)
    [run] = work.glob("*/0")
    assert Run.open(run).config.validation_users == 0
    found = results.load(ranking.NAME, tmp_path)
    assert found is not None
    untrained = set(found["parts"][LABEL]["baselines"])
    assert {"TGH-1, no training", "TGH-2, no training", "transitions alone", "content alone"} <= untrained
    assert "item_cf alone" not in untrained
    rows = {row["criterion"]: row["value"] for row in results.read_rows(tmp_path / "quality.json")}
    means = found["parts"][LABEL]["means"]
    # Without learned weights, all signals without the network are item-CF.
    assert means["fused"]["ndcg@10"] == means["item_cf"]["ndcg@10"]
    ahead = means["blend"]["recall@10"]["mean"] - means["item_cf"]["recall@10"]["mean"]
    assert rows[f"{LABEL}: recall@10 gained on item-CF"] == pytest.approx(ahead, abs=1e-4)
    assert f"{LABEL}: recall@10 gained on item-CF, lower end" in rows
    kept = ranks.Ranks.load(run / ranks.FILE)
    assert kept.of("served").shape == (30,)

    # What another commit writes of its run equals what the ranking wrote of the same artefact.
    older = tmp_path / "older"
    shutil.copytree(run, older / "run")
    (older / "run" / ranks.FILE).unlink()
    app = typer.Typer()
    app.command()(ranks.main)
    invoke(app, str(older))
    assert ranks.Ranks.load(older / "run" / ranks.FILE).of("served").tolist() == kept.of("served").tolist()
    invoke(ranking.app, *options, "--before", str(older))
    compared = results.load(before.NAME, tmp_path)
    assert compared is not None
    assert [(row["part"], row["difference"]) for row in compared["rows"]] == [(LABEL, 0.0), (LABEL, 0.0)]


def test_options_that_have_a_flag_of_their_own_are_refused(tmp_path: Path) -> None:
    tiny_dataset(8, 8, has_time=False).save(tmp_path / "log")
    options = ["--data", str(tmp_path / "log"), "--work", str(tmp_path / "work")]
    for wrong, said in (
        (["--set", "validation_users=0"], "--split"),
        (["--set", "seed=1"], "--seeds"),
        (["--split", "loose"], "strict or sampled"),
        (["--ties", "shuffled"], "no ties"),
    ):
        refused = CliRunner().invoke(ranking.app, [*options, *wrong])
        assert refused.exit_code == 2
        assert said in refused.output


def test_the_splits_of_a_data_set_have_folders_and_names_of_their_own() -> None:
    dataset = tiny_dataset(8, 8)
    strict, sampled = (ranking.Trial.of(dataset, split, "published", 30.0, []) for split in ("strict", "sampled"))
    assert (strict.label, sampled.label) == ("strict tiny, 30 minutes", "tiny, 30 minutes")
    assert strict.folder != sampled.folder
    assert strict.command.endswith("--minutes 30")
    assert sampled.command.endswith("--split sampled --minutes 30")
    config = TrainConfig.build(None, list(strict.settings))
    split = split_of(config, sequences(dataset))
    assert len(split.valid) == len(split.test)


def test_shuffled_ties_keep_every_event_at_its_time() -> None:
    plain = tiny_dataset(8, 8)
    day = 86_400_000
    events = plain.events.with_columns(timestamp=plain.events["timestamp"] // day * day)
    coarse = Dataset.of(plain.name, events, plain.items, plain.users, has_time=True)
    shuffled = ranking.with_ties_shuffled(coarse)
    assert shuffled.fingerprint != coarse.fingerprint
    by = ["user_id", "timestamp", "item_id", "event_type"]
    assert shuffled.events.select(by).sort(by).equals(coarse.events.select(by).sort(by))
    assert shuffled.events.select(by[:2]).equals(coarse.events.select(by[:2]))


def test_pages_show_the_strict_split_first() -> None:
    means = {way: {m: {"mean": 0.1, "half_width": None} for m in ("recall@10", "ndcg@10")} for way in quality.WAYS}
    parts = {"shop": {"means": means, "seeds": {}}, "strict shop": {"means": means, "seeds": {}}}
    text = quality.ranking({"parts": parts, "date": "today"})
    assert text.index("| shop | strict |") < text.index("| shop | sampled |")
    summary = quality_summary.ranking([], {"quality_ranking": {"parts": parts}})
    assert summary.index("| shop | strict |") < summary.index("| shop | sampled |")
