"""Requests of a space in progress: what happens to those beyond the bound."""

from __future__ import annotations

from service.common.metrics import Metrics
from service.guard.in_flight import InFlight
from service.guard.loop_turns import LoopTurns


def test_beyond_the_bound_lists_are_hurried_then_refused_and_other_routes_are_refused_at_once() -> None:
    metrics = Metrics()
    space = InFlight(2, metrics, LoopTurns().space())
    assert [space.begin("/recommend") for _ in range(5)] == ["admitted", "admitted", "hurried", "hurried", "refused"]
    for _ in range(3):
        space.end()
    assert space.begin("/events") == "refused"
    space.end()
    space.end()
    assert space.begin("/events") == "admitted"
    counted = {
        outcome: metrics.registry.get_sample_value("gpt4rec_crowded_total", {"outcome": outcome})
        for outcome in ("hurried", "refused")
    }
    assert counted == {"hurried": 2.0, "refused": 2.0}


def test_probes_and_operators_are_never_turned_away() -> None:
    space = InFlight(1, Metrics(), LoopTurns().space())
    always = ("/healthz", "/readyz", "/metrics", "/version", "/ops/status")
    assert [path for path in (*always, "/recommend", "/events", "/items") if space.counts(path)] == [
        "/recommend", "/events", "/items",
    ]  # fmt: skip
