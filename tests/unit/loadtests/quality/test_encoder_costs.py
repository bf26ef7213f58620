"""What encoders with a memory cost beside the window: timed in turns, held to limits, drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from export import artifact_writer
from loadtests.draw.methods import encoders
from loadtests.quality.encoder_costs import in_turns, rows_of
from loadtests.quality.method_criteria import DEFAULTS, REMEMBERING, worth_it
from service.artifact.artifact import Artifact
from service.engine.engine import Engine
from tests.support.artifacts import random_parts
from tests.support.networks import random_network

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


def test_the_table_says_what_an_encoder_reads_gains_and_costs() -> None:
    part = {"data": "ml", "table": [WINDOW, line()], "command": "python -m x"}
    drawn = encoders({"parts": {"ml-small-4": part}, "date": "2026-11-30"})
    assert "| defaults | – | – | – | 50 | 13,761 | 0.50 | – |" in drawn
    assert "| 3 | 0.1200 | +0.0200 (+0.0100 … +0.0300) * | all | 13,761 | 0.50 | 1.20 × |" in drawn
    assert drawn.endswith("`python -m x`, 2026-11-30")


def test_engines_take_turns_and_say_what_their_states_hold(tmp_path: Path) -> None:
    artifact_writer.write(random_parts(random_network()), tmp_path, "float32")
    engines = {name: Engine(Artifact.open(tmp_path), device="cpu", threads=1) for name in ("one", "other")}
    found = in_turns(engines, rounds=3)
    assert found["one"]["event_ratio"] == 1.0 and found["other"]["event_ratio"] > 0
    assert found["one"]["state_bytes"] == found["other"]["state_bytes"] > 0
    assert found["one"]["reads"] == engines["one"].receptive_field
