"""Summaries of workers are shown as one: added up, weighted, and of each drift the worst."""

from __future__ import annotations

from typing import Any

from service.watch.summaries import merged_summary


def drift(statistic: str, divergence: float, threshold: float) -> dict[str, Any]:
    return {"statistic": statistic, "divergence": divergence, "threshold": threshold}


def test_workers_are_shown_as_one() -> None:
    mild, hard = drift("visits", 0.3, 0.2), drift("visits", 0.2, 0.05)
    one = {
        "baseline": "ok", "lists": 3, "events": 1, "figures": {"coverage": 0.5}, "drift": [mild], "over": {"hour": []},
    }  # fmt: skip
    other = {
        "baseline": "missing", "lists": 1, "events": 4, "figures": {"coverage": 0.1, "novelty": 2.0}, "drift": [hard],
        "over": {"hour": [hard], "day": [mild]},
    }  # fmt: skip
    assert merged_summary([one, {}, other]) == {
        "baseline": "missing", "lists": 4, "events": 5, "figures": {"coverage": 0.4, "novelty": 2.0}, "drift": [hard],
        "over": {"hour": [hard], "day": [mild]},
    }  # fmt: skip
    assert merged_summary([{}]) == {}
