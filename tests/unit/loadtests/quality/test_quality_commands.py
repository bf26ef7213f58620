"""The commands of the condition and long-history figures, from a data set to its table, on a tiny log."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import polars as pl
import pytest
import torch
import typer
from typer.testing import CliRunner

from loadtests.common import results
from loadtests.draw.quality_conditions import conditions, long_histories
from loadtests.quality import condition_rows
from loadtests.quality import conditions as command
from loadtests.quality import long_histories as lengths
from model.data.dataset import Dataset
from tests.support.data_builders import tiny_dataset


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Figures go to a folder of the test; one thread."""
    folder = tmp_path / "results"
    for module in (condition_rows, lengths):
        monkeypatch.setattr(module, "save", partial(results.save, folder=folder))
        monkeypatch.setattr(module, "load", partial(results.load, folder=folder))
        monkeypatch.setattr(module, "QUALITY", folder / "quality.json")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield folder
    torch.set_num_threads(before)


def invoke(app: typer.Typer, *arguments: str) -> None:
    found = CliRunner().invoke(app, arguments)
    if found.exception is not None:
        raise found.exception


def test_conditions_are_trained_asked_and_compared_and_nothing_is_trained_twice(kept: Path, tmp_path: Path) -> None:
    tiny_dataset(60, 20, min_events=8, max_events=14).save(tmp_path / "log")
    work = tmp_path / "work"
    work.mkdir()
    arguments = ["journey", "--data", str(tmp_path / "log"), "--work", str(work), "--epochs", "1", "--days", "900"]
    arguments += ["--least", "1", "--only", "none,hierarchical,control,features,mlp,scene,prompts,segment"]
    invoke(command.app, *arguments)
    found = results.load(condition_rows.NAME, kept)
    assert found is not None
    labels = [row["label"] for row in found["ablations"]["journey-900-1-1-1"]]
    assert {
        "codes from the category tree, not semantic ids", "user features in a layer (MLP), not as a sum",
        "soft prompts for the scene, beside its embedding", "category asked for",
        "soft prompts for a user feature, beside its embedding",
    } <= {*labels}  # fmt: skip
    assert {"item-CF", "popularity", "repeat purchase", "unknown"} <= set(next(iter(found["runs"].values()))["figures"])
    assert all(label in conditions(found) for label in labels)
    assert len(results.read_rows(kept / "quality.json")) == len(labels)
    weights = {file: file.read_bytes() for file in work.rglob("*.safetensors")}
    invoke(command.app, *arguments)
    again = results.load(condition_rows.NAME, kept)
    assert again is not None
    assert again["ablations"] == found["ablations"]
    assert {file: file.read_bytes() for file in work.rglob("*.safetensors")} == weights


def test_types_are_compared_over_all_and_over_what_was_liked(kept: Path, tmp_path: Path) -> None:
    plain = tiny_dataset(40, 20)
    events = plain.events.with_columns(value=(pl.int_range(pl.len()) % 5 + 1).cast(pl.Float64))
    rated = Dataset.of("rated", events, plain.items, plain.users, has_time=True)
    rated.save(tmp_path / "log")
    work = tmp_path / "work"
    work.mkdir()
    only = ["--only", "without,scaled,weighted"]
    invoke(command.app, "types", "--data", str(tmp_path / "log"), "--work", str(work), "--epochs", "1", *only)
    found = results.load(condition_rows.NAME, kept)
    assert found is not None
    rows = {row["label"]: row["questions"] for row in found["ablations"]["types-1"]}
    assert len(rows) == 3
    assert 0 < rows["types weighed in the loss, what was liked"] < rows["types weighed in the loss, all"] == 40


def test_windows_are_compared_with_full_attention_at_every_length(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lengths, "SECONDS", 0.01)
    tiny_dataset(40, 20, min_events=10, max_events=20).save(tmp_path / "log")
    app = typer.Typer()
    app.command()(lengths.main)
    folders = ["--data", str(tmp_path / "log"), "--work", str(tmp_path / "work")]
    invoke(app, *folders, "--lengths", "8", "--windows", "4", "--minutes", "0.01")
    found = results.load(lengths.NAME, kept)
    assert found is not None
    assert [(run["length"], run["window"]) for run in found["runs"].values()] == [(8, 4), (8, 8)]
    assert [(d["length"], d["window"]) for d in found["differences"]] == [(8, 4)]
    narrow, wide = (run["state_bytes"] for run in found["runs"].values())
    assert narrow < wide
    assert "| 8 | 8 (full) | 1 |" in long_histories(found)
