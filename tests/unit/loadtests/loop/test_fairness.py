"""Lists of one history and two groups are compared as plain loops compare them; a served model is asked."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from loadtests.loop import fairness
from service.watch.item_groups import ItemGroups
from tests.support.data_builders import tiny_dataset
from tests.support.fakes import FakeArtifact

GROUPS = ItemGroups.of(FakeArtifact().catalogue, FakeArtifact().popularity)
INDEX = {str(i): i for i in range(40)}


def test_differences_are_those_of_the_definitions() -> None:
    lists = {"x": [["0", "1"], ["0", "2"]], "y": [["0", "39"], ["0", "2"]]}
    histories: list[fairness.History] = [[{"item_id": "5"}], [{"item_id": "6"}]]

    def ask(history: fairness.History, features: Mapping[str, str]) -> list[str]:
        return lists[features["group"]][histories.index(history)]

    (found,) = fairness.counterfactual(ask, histories, "group", ["x", "y"], INDEX, GROUPS)
    assert (found.values, found.overlap, found.same) == (("x", "y"), 0.75, 0.5)
    first, second, difference, half = found.exposure["popularity"]["tail"]
    assert (first, second, difference) == (0.0, 0.25, -0.25)
    assert half == pytest.approx(1.959964 * np.std([-0.5, 0.0], ddof=1) / math.sqrt(2))
    assert found.exposure["category"]["Comedy"][:3] == (0.5, 0.5, 0.0)
    assert "tail" not in fairness.text("group", found, 2)  # within chance


def test_a_served_model_is_asked_with_the_same_history_and_another_group(random_artifact: Path, tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "report.json"
    tiny_dataset(users=6, items=40).save(data)
    app = typer.Typer()
    app.command()(fairness.main)
    command = ["--artifact", str(random_artifact), "--data", str(data), "--users", "4"]
    refused = CliRunner().invoke(app, [*command, "--feature", "gender"])
    assert refused.exit_code == 2
    done = CliRunner().invoke(app, [*command, "--feature", "age", "--json", str(out)])
    assert done.exit_code == 0, done.output
    report = json.loads(out.read_text("utf-8"))
    (difference,) = report["differences"]
    assert (report["histories"], difference["values"]) == (4, ["old", "young"])
    assert 0.0 <= difference["overlap"] <= 1.0
    assert sum(group["first"] for group in difference["exposure"]["popularity"].values()) == pytest.approx(1.0)
