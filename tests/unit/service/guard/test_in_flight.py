"""Requests of a space in progress: what happens to those beyond the bound."""

from __future__ import annotations

import asyncio

import pytest

from service.guard import in_flight
from service.guard.in_flight import InFlight
from service.guard.loop_turns import LoopTurns
from service.metrics.service_metrics import Metrics
from tests.support.aio import asynchronous


def test_beyond_the_bound_lists_are_hurried_then_refused_and_other_routes_are_refused_at_once() -> None:
    metrics = Metrics()
    space = InFlight(metrics, LoopTurns().space(2))
    assert [space.begin("/recommend") for _ in range(5)] == ["admitted", "admitted", "hurried", "hurried", "refused"]
    for _ in range(2):
        space.end()
    assert space.begin("/events") == "refused"
    space.end()
    assert space.begin("/events") == "admitted"
    counted = {
        outcome: metrics.registry.get_sample_value("gpt4rec_crowded_total", {"outcome": outcome})
        for outcome in ("hurried", "refused")
    }
    assert counted == {"hurried": 2.0, "refused": 2.0}


def test_probes_and_operators_are_never_turned_away() -> None:
    space = InFlight(Metrics(), LoopTurns().space(1))
    always = ("/healthz", "/readyz", "/metrics", "/version", "/ops/status")
    assert [path for path in (*always, "/recommend", "/events", "/items") if space.counts(path)] == [
        "/recommend", "/events", "/items",
    ]  # fmt: skip


@asynchronous
async def test_refusals_are_held_but_not_more_than_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_flight, "_HELD_S", 60.0)
    monkeypatch.setattr(in_flight, "_HELD_MOST", 3)
    space = InFlight(Metrics(), LoopTurns().space(1))
    held = [asyncio.ensure_future(space.hold()) for _ in range(5)]
    done, waiting = await asyncio.wait(held, timeout=5.0, return_when=asyncio.FIRST_COMPLETED)
    assert (len(done), len(waiting)) == (2, 3)
    waiting.pop().cancel()  # its client has left
    for _ in range(3):
        await asyncio.sleep(0)
    again = asyncio.ensure_future(space.hold())
    await asyncio.sleep(0)
    assert not again.done()
    for one in (*waiting, again):
        one.cancel()
