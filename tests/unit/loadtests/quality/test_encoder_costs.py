"""What encoders with a memory cost beside the window: timed in turns, held to limits, drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from export import artifact_writer
from loadtests.common import results
from loadtests.draw.methods import encoders
from loadtests.quality import encoder_costs, methods
from loadtests.quality.encoder_costs import in_turns, rows_of
from loadtests.quality.method_criteria import DEFAULTS, METHODS, REMEMBERING, worth_it
from model.data.dataset import sequences
from service.artifact.artifact import Artifact
from service.engine.engine import Engine
from tests.support.artifacts import random_parts
from tests.support.data_builders import tiny_dataset
from tests.support.networks import random_network

pytestmark = pytest.mark.usefixtures("one_thread")

FEW = "diversity .01"
WINDOW: dict[str, Any] = {
    "encoder": DEFAULTS, "seeds": None, "ndcg@10": None, "difference": None, "low": None, "high": None, "p_holm": None,
    "state_bytes": 13_761, "reads": 50, "event_ms": 0.5, "event_ratio": 1.0,
}  # fmt: skip


def line(**changed: Any) -> dict[str, Any]:
    gain = {"seeds": 3, "ndcg@10": 0.12, "difference": 0.02, "low": 0.01, "high": 0.03, "p_holm": 0.01}
    return {**WINDOW, "encoder": REMEMBERING[0], "reads": None, "event_ratio": 1.2, **gain, **changed}


@pytest.mark.parametrize(
    ("changed", "worth"),
    [({}, 1), ({"low": -0.001}, 0), ({"p_holm": 0.06}, 0), ({"event_ratio": 1.31}, 0), ({"state_bytes": 24_577}, 0)],
    ids=str,
)
def test_an_encoder_is_worth_it_if_it_gains_more_than_chance_within_both_limits(
    changed: dict[str, Any], worth: int
) -> None:
    one = line(**changed)
    assert worth_it(one["low"], one["p_holm"], one["event_ratio"], one["state_bytes"]) is bool(worth)
    rows = {row.criterion: row for row in rows_of("some", [WINDOW, one], "the command")}
    assert len(rows) == 5, "the window has a state, and nothing that it gains on itself"
    last = rows["encoders, some: ahead of the window by more than chance, at its limits of time and state"]
    assert (last.value, last.holds) == (worth, bool(worth))


def test_one_table_says_what_an_encoder_reads_gains_and_costs_at_every_length() -> None:
    of_window = {**WINDOW, "seeds": 3, "questions": None, "figure": 0.1}
    gains = line(figure=0.12, questions=41)
    table, of = [of_window, gains], ("ml", "python -m x")
    parts = {
        f"ml-{length}": {"data": of[0], "length": length, "table": table, "command": f"{of[1]} --length {length}"}
        for length in (1000, 50)
    } | {"ml": {"data": of[0], "table": [WINDOW, line()], "command": of[1]}}
    drawn = encoders({"parts": parts, "date": "2026-11-30"}).splitlines()
    assert drawn[2] == "| ml | 50 | defaults | 3 | – | 0.1000 | – | 50 | 13,761 | 0.50 | – | 1 |"
    gain = "+0.0200 (+0.0100 … +0.0300) *"
    assert drawn[3] == f"| ml | 50 | {REMEMBERING[0]} | 3 | 41 | 0.1200 | {gain} | all | 13,761 | 0.50 | 1.20 × | 1 |"
    assert [row.split(" | ")[1] for row in drawn[2:8]] == ["50", "50", "1,000", "1,000", "all", "all"]
    assert drawn[6] == "| ml | all | defaults | – | – | – | – | 50 | 13,761 | 0.50 | – | 3 |"
    assert drawn[-1] == "3. `python -m x`"


def test_engines_take_turns_and_say_what_their_states_hold(tmp_path: Path) -> None:
    artifact_writer.write(random_parts(random_network()), tmp_path, "float32")
    engines = {name: Engine(Artifact.open(tmp_path), device="cpu", threads=1) for name in ("one", "other")}
    found = in_turns(engines, rounds=3)
    assert found["one"]["event_ratio"] == 1.0 and found["other"]["event_ratio"] > 0
    assert found["one"]["state_bytes"] == found["other"]["state_bytes"] > 0
    assert found["one"]["reads"] == engines["one"].receptive_field


def test_one_command_trains_asks_and_times_at_a_length_and_its_rows_join_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only those who have so many events are asked, and nothing that they had before the cut is listed."""
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    monkeypatch.setattr(results, "MEMORY", tmp_path / "memory.json")
    monkeypatch.setattr(encoder_costs, "ROUNDS", 2)
    monkeypatch.setattr(encoder_costs, "METHODS", {DEFAULTS: METHODS[DEFAULTS], FEW: METHODS[FEW]})
    monkeypatch.setattr(encoder_costs, "REMEMBERING", (FEW,))  # any other training, so that torch traces no encoder
    dataset = tiny_dataset(users=20, items=40, min_events=5, max_events=30)
    dataset.save(tmp_path / "data")
    app = typer.Typer()
    app.command("methods")(methods.main)
    app.command("costs")(encoder_costs.main)
    shared = ["--data", str(tmp_path / "data"), "--work", str(tmp_path / "work"), "--size", "tiny", "--epochs", "1"]
    for length in (10, 15, 99):
        told = [*shared, "--length", str(length)]
        done = CliRunner().invoke(app, ["methods", *told, "--seeds", "0", "--only", FEW])
        if length == 99:
            assert done.exit_code == 2 and "nobody has 99 events" in done.output
            continue
        assert done.exit_code == 0, done.output
        assert CliRunner().invoke(app, ["costs", *told]).exit_code == 0
    found = results.load("quality_encoders", tmp_path)
    assert found is not None and [part["length"] for part in found["parts"].values()] == [10, 15]
    enough = [int((sequences(dataset).lengths > length).sum()) for length in (10, 15)]
    assert 0 < enough[1] < enough[0] < 20
    assert [part["table"][1]["questions"] for part in found["parts"].values()] == enough
    assert encoders(found).count(f"| {FEW} |") == 2
    assert all("--length" in row["command"] for row in results.read_rows(tmp_path / "memory.json"))
