"""The cost of a list: an artefact in which every signal counts, users who have all of them, and rows with limits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from loadtests.draw.quality_strict import cost as drawn
from loadtests.engine import decode_worker
from loadtests.engine.synthetic_artifact import write_synthetic
from loadtests.engine.user_cases import Users
from loadtests.quality import criteria
from loadtests.quality.cost import AFTER_AN_EVENT, BEFORE, NOW, of_a_list, of_the_host
from model.signals.registry import SIGNALS, VECTORS
from service.engine.engine import Engine

ITEMS = 300
# Given vectors are rare, and their table costs what that of the texts does: figures stay comparable without them.
MEASURED = set(SIGNALS) - {VECTORS}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cost")
    write_synthetic(folder, ITEMS, size="tiny", dense=None, fused=True)
    return folder


def opened(folder: Path) -> Engine:
    return Engine.open(next(folder.glob(f"fused-{ITEMS}-*")), device="cpu", threads=1)


def test_every_signal_of_the_registry_counts_with_and_without_the_network(folder: Path) -> None:
    ranker = opened(folder).artifact.ranker
    assert set(ranker.signals) == MEASURED
    for weights, names in (
        (ranker.groups["default"], {"path", "dense", *MEASURED}),
        (ranker.without_network, MEASURED),
    ):
        assert {name for name, weight in weights.items() if weight} == names


def test_users_keep_their_signals_until_an_event_and_the_rung_lists_by_all_of_them(folder: Path) -> None:
    users = Users(opened(folder))
    kept, fresh = users.profiles[3], users.after_an_event(3)
    assert kept.kept_signals is not None and fresh.kept_signals is None
    computed, known = (one.signals(one.history).unpacked() for one in (fresh, kept))
    np.testing.assert_array_equal(computed.values, known.values)
    assert len(kept.user_history(kept.history).before)
    listed = users.rung(3)
    assert (len(listed.items), listed.source) == (10, "item_cf")
    assert set(listed.scorers) == MEASURED


def test_the_worker_answers_each_line_with_milliseconds(folder: Path) -> None:
    app = typer.Typer()
    app.command()(decode_worker.main)
    arguments = [str(folder), "--items", str(ITEMS), "--batch", "2", "--fused"]
    asked = CliRunner().invoke(app, arguments, input="2\n1 fresh\n")
    assert asked.exit_code == 0, asked.output
    ready, *answers = asked.stdout.split()
    assert ready == "ready" and len(answers) == 2 and all(float(answer) > 0 for answer in answers)


def test_what_is_measured_has_its_criteria_and_is_drawn(folder: Path) -> None:
    host = of_the_host(folder, ITEMS, 8)
    assert host["speak"] == ITEMS
    assert 0 < host["rung"]["p50"] <= host["rung"]["p99"] and 0 < host["signals"]["p50"] <= host["signals"]["p99"]
    assert of_a_list(folder)["strict cost: ONNX runs of a list"] == 1
    row = {"items": ITEMS, "batch": 1, NOW: [1.0], AFTER_AN_EVENT: [2.0], BEFORE: [1.0]}
    ratios = {"ratio": 1.0, "ratio_after_an_event": 2.0}
    page = drawn({"rows": [row | ratios], "host": [host], "command": "c", "date": "2026-01-01"})
    assert "2.00 ×" in page and f"| {ITEMS} |" in page
    assert [criteria.limit(f"{criteria.RUNG}: {items:,} items") for items in criteria.COST_SIZES] == [
        {"at_most": 1.0}
    ] * 3
