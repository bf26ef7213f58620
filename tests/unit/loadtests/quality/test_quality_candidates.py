"""The measurement of joined candidates: over two artefacts that differ in nothing else, and it keeps what it had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from loadtests.common import results
from loadtests.draw import quality_candidates
from loadtests.quality.candidates import METRICS, NAME, WIDTHS, cost, keep, synthetic
from service.artifact.artifact import Artifact


def found(value: float) -> dict[str, Any]:
    figures = dict.fromkeys(METRICS, value)
    lead = [{"metric": "recall@10", "difference": 0.01, "low": 0.0, "high": 0.02, "p_value": 0.04}]
    lists = [{"strategy": "beam", "width": 64, "blend": 1.0, "joined": figures, "alone": figures, "lead": lead}]
    return {"items": 40, "users": 9, "exhaustive": dict.fromkeys(METRICS, 0.1), "lists": lists}


def test_decode_times_compare_artefacts_that_differ_in_their_candidates_alone(tmp_path: Path) -> None:
    alone, joined = (synthetic(tmp_path, 300, dense=dense) for dense in (False, True))
    assert synthetic(tmp_path, 300, dense=True) == joined
    assert [Artifact.open(one).manifest["dense_candidates"] for one in (alone, joined)] == [False, True]
    times = cost(alone, joined, rounds=1)
    assert times["items"] == 300
    assert all(times[str(width)]["ratio"] > 0 for width in WIDTHS)


def test_figures_of_other_data_sets_stay_in_the_payload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    payloads: dict[str, Any] = {}
    monkeypatch.setattr(results, "QUALITY", tmp_path / "quality.json")
    monkeypatch.setattr(results, "load", payloads.get)
    monkeypatch.setattr(results, "save", lambda name, payload, **_: payloads.update({name: payload}))
    timed = {"64": {"ratio": 1.5}}
    keep("a", found(0.1), {"a": timed}, "command")
    keep("b", found(0.09), {"b": timed}, "command")
    assert set(payloads[NAME]["worth"]) == set(payloads[NAME]["cost"]) == {"a", "b"}
    rows = {row["criterion"]: row["holds"] for row in results.read_rows(tmp_path / "quality.json")}
    assert rows["a: recall@10, served list / exhaustive dense score"] is True
    assert rows["b: recall@10, served list / exhaustive dense score"] is False
    assert len(rows) == 6


def test_the_tables_have_a_row_for_every_case_and_one_for_the_exhaustive_score() -> None:
    ms = {"alone": {"cpu_p50": 1.0}, "joined": {"cpu_p50": 1.5}, "ratio": 1.5}
    payload = {"worth": {"a": found(0.1)}, "cost": {"a": {"items": 40, "64": ms}}, "command": "c", "date": "2026-01-01"}
    drawn = quality_candidates.candidates(payload)
    assert "| a | beam, width 64; 0, 1 | 0.1000 / 0.1000 | 0.1000 / 0.1000 |" in drawn
    assert "exhaustive dense score, 9 users" in drawn
    assert "| 1.00 | 1.50 | 1.50 |" in drawn
