"""A change of a state is one log line, with what it was, what it is and why."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest

from service.common import logs
from service.coordination.forced_mode import ForcedMode, Mode
from service.guard.guard import Guard, GuardSettings, Outcome
from service.guard.guards import Guards
from service.lifecycle.serving import Serving
from service.ops.state_changes import StateChanges
from tests.support.clock import FakeClock


@pytest.fixture
def written() -> io.StringIO:
    stream = io.StringIO()
    logs.configure("info", stream)
    return stream


def lines(written: io.StringIO) -> list[dict[str, Any]]:
    found = [orjson.loads(line) for line in written.getvalue().splitlines()]
    written.truncate(0)
    written.seek(0)
    # Threads of earlier tests may still log.
    return [one for one in found if one["event"].endswith("_changed")]


def test_each_change_of_breaker_budgets_mode_and_engine_is_one_line(written: io.StringIO) -> None:
    clock = FakeClock()
    guard = Guard(GuardSettings(), clock)
    model = SimpleNamespace(healthy=True, version="v1")
    mode = SimpleNamespace(mode=Mode())
    changes = StateChanges(Guards(guard), cast("ForcedMode", mode), cast("Serving", SimpleNamespace(model=model)))
    for _ in range(3):
        changes.look()
    assert lines(written) == []

    for _ in range(60):
        guard.observe(Outcome.FAILED)
        guard.answered("item_cf")
        changes.look()
    told = {(one["event"], one.get("objective")): one for one in lines(written)}
    assert set(told) == {("breaker_changed", None), ("budget_changed", "errors"), ("budget_changed", "served")}
    opened = told["breaker_changed", None]
    assert (opened["was"], opened["now"], opened["cause"], opened["model_share"]) == (
        "closed", "open", "breaker_open", 0.0,
    )  # fmt: skip
    burning = told["budget_changed", "errors"]
    assert (burning["was"], burning["now"], burning["burn_rate"]) == ("kept", "burning", pytest.approx(100.0))

    mode.mode, model.healthy = Mode("fallback", "drill", "alice", version=1), False
    clock.advance(61.0)  # the breaker probes by now, and the minute that burnt is over
    changes.look()
    told = {(one["event"], one.get("objective")): one for one in lines(written)}
    assert {key: (one["was"], one["now"]) for key, one in told.items()} == {
        ("breaker_changed", None): ("open", "half_open"),
        ("budget_changed", "errors"): ("burning", "kept"),
        ("budget_changed", "served"): ("burning", "kept"),
        ("mode_changed", None): ("auto", "fallback"),
        ("engine_changed", None): ("healthy", "stalled"),
    }
    assert told["mode_changed", None]["actor"] == "alice"
