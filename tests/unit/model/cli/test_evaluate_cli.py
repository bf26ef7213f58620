"""`gpt4rec evaluate` says what was measured: whose lists, with or without the history, on which questions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from export.from_baseline import export_baseline
from model.cli.train_evaluate import evaluate_app
from model.data.dataset import Dataset
from model.training.config import TrainConfig
from model.training.trainer import Trainer
from tests.support.data_builders import tiny_dataset


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of 60 users who take their first item again and again, the last two times in one second."""
    folder = tmp_path_factory.mktemp("again")
    dataset = tiny_dataset(60, 40, min_events=8, max_events=8)
    place = pl.int_range(pl.len()).over("user_id")
    events = dataset.events.sort("user_id", "timestamp").with_columns(
        item_id=pl.when(place >= 4).then(pl.col("item_id").first().over("user_id")).otherwise(pl.col("item_id")),
        timestamp=pl.when(place == 7).then(pl.col("timestamp").shift(1).over("user_id")).otherwise(pl.col("timestamp")),
    )
    with_events(dataset, events).save(folder)
    return folder


def with_events(dataset: Dataset, events: pl.DataFrame) -> Dataset:
    return Dataset.of(
        "again", events, dataset.items, dataset.users, has_time=True, category_kind="path", source="built"
    )


def evaluated(*arguments: object) -> tuple[dict[str, Any], str]:
    result = CliRunner().invoke(evaluate_app, [*map(str, arguments), "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout), result.stderr


@pytest.mark.parametrize(("name", "row"), [("repeat", "repeat"), ("item_cf", "item_cf"), ("popularity", "popular")])
def test_a_baseline_is_listed_as_what_it_is(data: Path, tmp_path: Path, name: Any, row: str) -> None:
    found, _ = evaluated("--artifact", export_baseline(name, data, tmp_path), "--data", data)
    assert "gpt4rec" not in found["systems"]
    assert next(iter(found["systems"])) == row
    assert set(found["systems"]) == {row, "item_cf", "popular"}


def test_every_signal_of_an_artefact_has_a_row_if_asked(tmp_path: Path) -> None:
    tiny_dataset(users=200).save(tmp_path / "data")
    artifact = export_baseline("fused", tmp_path / "data", tmp_path / "out")
    arguments = ["--artifact", str(artifact), "--data", str(tmp_path / "data")]
    result = CliRunner().invoke(evaluate_app, [*arguments, "--signals", "--json"])
    assert result.exit_code == 0, result.output
    systems = json.loads(result.stdout)["systems"]
    names = ["fused", "item_cf", "popular", "transitions", "walk", "content", "repeat", "repurchase", "trend"]
    assert list(systems) == names
    table = [line.split("│")[1:-1] for line in result.stderr.splitlines() if line.count("│") == 8]
    shown = {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in table}
    assert {name: shown[name][:3] for name in names} == {
        name: [f"{systems[name][metric]:.4f}" for metric in ("recall@10", "ndcg@10", "mrr@10")] for name in names
    }
    plain, _ = evaluated(*arguments)
    assert list(plain["systems"]) == names[:3]
    alone = CliRunner().invoke(evaluate_app, ["--run", "r", "--data", "d", "--signals"])
    assert alone.exit_code == 2 and "--signals" in alone.output


def test_where_people_buy_again_the_history_stays_and_the_share_and_the_ties_are_said(
    data: Path, tmp_path: Path
) -> None:
    found, said = evaluated("--artifact", export_baseline("repeat", data, tmp_path), "--data", data)
    assert found["history_kept"] is True
    assert found["repeat_share"] == found["tied_share"] == 1.0
    assert "100.0% of the targets have the timestamp of the event before them" in found["warnings"][0]
    assert found["systems"]["repeat"]["recall@10"] == 1.0
    assert "100.0% of the targets were in the history, which is kept in the lists" in said
    assert found["warnings"][0] in said


def test_a_run_is_evaluated_as_it_was_trained(data: Path, tmp_path: Path) -> None:
    settings = TrainConfig.build(None, ["size=tiny", "split=time", "max_epochs=1", "tokenizer=atomic"])
    trainer = Trainer(Dataset.load(data), data, tmp_path / "run", settings)
    trainer.fit(max_minutes=0.01)
    found, _ = evaluated("--run", tmp_path / "run", "--data", data)
    assert trainer.config.repeats is True
    assert found["history_kept"] is True
    assert "split by time" in found["protocol"]
    assert "items of the history kept" in found["protocol"]


def test_a_log_in_which_nobody_takes_the_same_again_keeps_the_history_out(tmp_path: Path) -> None:
    dataset = tiny_dataset(30, 40, min_events=6, max_events=6)
    place = pl.int_range(pl.len()).over("user_id")
    first = pl.col("item_id").first().over("user_id").str.strip_prefix("i").cast(pl.Int64)
    around = pl.format("i{}", (first + place) % 40)
    with_events(dataset, dataset.events.with_columns(item_id=around)).save(tmp_path)
    found, said = evaluated("--artifact", export_baseline("item_cf", tmp_path, tmp_path / "out"), "--data", tmp_path)
    assert (found["history_kept"], found["repeat_share"], found["warnings"]) == (False, 0.0, [])
    assert "which is left out of the lists" in said
