"""Rules made from other data sets: the thresholds never see the data set that they are judged on."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from loadtests.common import results
from loadtests.draw.quality_strict import rules as drawn
from loadtests.quality import rules
from model.data.dataset import Dataset
from tests.support.data_builders import tiny_dataset
from tests.support.figures import keep_in

SPARSE, DENSE = {"events an item": 5.0, "events a user": 9.0}, {"events an item": 200.0, "events a user": 90.0}
MUCH, LITTLE = "dropout .5", "dropout .2"


def figures(data: dict[str, float], much: float, little: float) -> dict[str, dict[str, dict[str, object]]]:
    values = {rules.SHIPPED: 0.05, MUCH: much, LITTLE: little}
    return {name: {"0": {"valid": value, "test": value, "data": data}} for name, value in values.items()}


def test_a_rule_divides_the_data_where_settings_change_places() -> None:
    found = {
        "a": figures(SPARSE, 0.10, 0.08),
        "b": figures({**SPARSE, "events an item": 8.0}, 0.10, 0.07),
        "c": figures(DENSE, 0.08, 0.10),
        "d": figures({**DENSE, "events an item": 300.0}, 0.07, 0.10),
    }
    judged = rules.judged(found)
    by_data = {row["data"]: row for row in judged["rows"]}
    assert {data: row["choice"] for data, row in by_data.items()} == {"a": MUCH, "b": MUCH, "c": LITTLE, "d": LITTLE}
    assert all(row["loss"]["valid"] == 0 for row in by_data.values())
    assert by_data["a"]["loss_shipped"]["test"] == pytest.approx(0.5)
    assert judged["rule"] == f"{MUCH} below 40 events an item, else {LITTLE}"


def test_the_left_out_data_set_does_not_choose_its_own_rule() -> None:
    found = {
        "odd": figures(SPARSE, 0.02, 0.10),
        "b": figures(SPARSE, 0.10, 0.08),
        "c": figures(SPARSE, 0.10, 0.08),
    }
    row = next(row for row in rules.judged(found)["rows"] if row["data"] == "odd")
    assert row["rule"] == f"always {MUCH}"
    assert row["loss"]["valid"] == pytest.approx(0.8)


def test_the_grid_is_trained_once_and_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_in(tmp_path, monkeypatch)
    small = {"size": "tiny", "max_epochs": 1, "tokenizer": "atomic", "item_init": "random"}
    monkeypatch.setattr(rules, "GRID", {rules.SHIPPED: small, MUCH: {**small, "network.dropout": 0.5}})
    options = ["--work", str(tmp_path / "work"), "--minutes", "1"]
    for name in ("one", "two", "three"):
        log = tiny_dataset(12, 10)
        make = partial(Dataset.of, has_time=log.has_time, category_kind=log.category_kind)
        make(name, log.events, log.items, log.users).save(tmp_path / name)
        options += ["--data", str(tmp_path / name)]
    assert CliRunner().invoke(rules.app, options).exit_code == 0
    weights = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.safetensors")}
    again = CliRunner().invoke(rules.app, options)
    assert again.exit_code == 0, again.output
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.safetensors")} == weights
    found = results.load(rules.NAME, tmp_path)
    assert found is not None
    assert [row["data"] for row in found["rows"]] == ["one", "two", "three"]
    assert all(row["figures"]["NDCG@10 of item-CF"] > 0 for row in found["rows"])
    assert "| one | " in drawn(found)
    assert CliRunner().invoke(rules.app, options[:-2]).exit_code == 2  # two data sets leave one for a rule
