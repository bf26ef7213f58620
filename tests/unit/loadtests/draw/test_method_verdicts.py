"""The line of each method says where it was measured and what that says, or that it was not."""

from __future__ import annotations

from typing import Any

from loadtests.draw.method_verdicts import ENTRIES, NOT_MEASURED, verdicts


def difference(low: float, high: float, p: float) -> dict[str, Any]:
    return {"difference": (low + high) / 2, "low": low, "high": high, "p_value": p, "p_holm": p}


def row(criterion: str, value: float, limit: str | None = None, holds: bool | None = None) -> dict[str, Any]:
    return {"criterion": criterion, "value": value, "limit": limit, "holds": holds}


def test_a_method_without_figures_is_not_measured() -> None:
    lines = verdicts({"quality_methods": None, "quality_conditions": None}, []).split("\n")[2:]
    assert len(lines) == len(ENTRIES)
    assert all(NOT_MEASURED in line for line in lines)


def test_every_kind_of_figure_has_its_verdict() -> None:
    trained = {
        "method": "contrast .1", "against": "defaults", "seeds": 2, "verdict": "helps",
        "ahead": {"ndcg@10": difference(0.01, 0.03, 0.001)},
    }  # fmt: skip
    label = {"label": "category asked for", "theirs": ["none", "unknown"], "seeds": 1}
    files: dict[str, Any] = {
        "quality_methods": {"parts": {"ml-small-8": {"table": [trained]}}},
        "quality_conditions": {"ablations": {"journey-1": [{**label, "ndcg@10": difference(-0.03, -0.01, 0.001)}]}},
    }
    rows = [
        row("behaviours, log: streams − mixed, lower end", -0.01, "> 0", holds=False),
        row("behaviours, log: streams − mixed, upper end", 0.02),
        row("behaviours, known log: streams, without a search", 0.9, "≥ 0.7", holds=True),
        row("ml, style: share of tail items, lost", 0.06, "≤ 0.05", holds=False),
        row("zero-shot, a → b: ndcg@10 above popularity, lower end, seed 0", 0.02, "> 0", holds=True),
    ]
    drawn = verdicts(files, rows)
    for line in (
        "contrast .1 | ml-small-8, 2 seeds | defaults | +0.0200 (+0.0100 … +0.0300) * | helps |",
        "category asked for | journey-1, 1 seed | none, unknown | -0.0200 (-0.0300 … -0.0100) * | hurts |",
        "a stream for each behaviour | log | mixed | -0.0100 … +0.0200 | no difference found |",
        "a stream for each behaviour | known log | its truth | without a search: 0.9, ≥ 0.7 | holds |",
        "| ml | – | style: share of tail items, lost: 0.06, ≤ 0.05 | missed |",
        "| a → b | – | ndcg@10 above popularity, lower end, seed 0: 0.02, > 0 | holds |",
    ):
        assert line in drawn
