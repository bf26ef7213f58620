"""What answers an arm is judged by itself, and what all of them do is counted together."""

from __future__ import annotations

import pytest

from service.batching.run_costs import Forecast
from service.common.deadline import Deadline
from service.guard.guard import Decision, Guard, GuardSettings, Outcome
from service.guard.guards import AS_FOR_EVERYBODY, Guards, Variant
from tests.support.clock import FakeClock

NEW, OTHER = Variant(model="new"), Variant(policies="0123")


def attempts(guard: Guard, clock: FakeClock, n: int, outcome: Outcome) -> list[Decision]:
    """Decides and observes; returns the decisions."""
    found = []
    for _ in range(n):
        decision = guard.decide(Deadline.after(1.0, clock), lambda _: Forecast())
        if decision.asks_the_model:
            guard.observe(outcome, 0.0, decision)
        guard.answered(decision.rung if outcome is Outcome.OK else "item_cf")
        found.append(decision)
    return found


def test_a_variant_that_fails_opens_its_own_breaker_and_no_other() -> None:
    clock = FakeClock()
    guards = Guards(Guard(GuardSettings(), clock))
    bad = attempts(guards.of(NEW), clock, 100, Outcome.FAILED)
    good = attempts(guards.of(OTHER), clock, 100, Outcome.OK)
    usual = attempts(guards.of(AS_FOR_EVERYBODY), clock, 100, Outcome.OK)
    assert {one.reason for one in (*good, *usual)} == {None}
    assert bad[-1].reason == "breaker_open"
    told = guards.status(NEW)
    assert (told["state"], told["model_share"], told["cause"]) == ("open", 0.0, "breaker_open")
    assert told["burn_rate"]["errors"]["1m"] == pytest.approx(100.0)
    assert guards.status(OTHER)["state"] == guards.status(AS_FOR_EVERYBODY)["state"] == "closed"
    assert guards.status(AS_FOR_EVERYBODY)["burn_rate"]["errors"]["1m"] == 0.0
    # Pages are about what callers got: all of them.
    failed = sum(one.asks_the_model for one in bad)
    assert guards.everybody.budgets.burn_rates()["errors"]["1m"] == pytest.approx(failed / (failed + 200) / 0.01)
    assert guards.everybody.budgets.burn_rates()["served"]["1m"] == pytest.approx(100 / 300 / 0.05)


def test_the_event_loop_is_one_for_all() -> None:
    clock = FakeClock()
    guards = Guards(Guard(GuardSettings(), clock))
    beside = guards.of(NEW)
    for _ in range(10):
        guards.everybody.lagged(0.020)
    assert beside.reserve_s(0.1) == guards.everybody.reserve_s(0.1) > 0.005


def test_another_model_in_service_is_judged_afresh_and_the_models_of_arms_are_not() -> None:
    clock = FakeClock()
    guards = Guards(Guard(GuardSettings(), clock))
    for variant in (NEW, OTHER, AS_FOR_EVERYBODY):
        attempts(guards.of(variant), clock, 100, Outcome.FAILED)
    guards.model_changed()
    assert [guards.status(one)["state"] for one in (NEW, OTHER, AS_FOR_EVERYBODY)] == ["open", "closed", "closed"]


def test_guards_are_dropped_with_what_they_guard_and_are_never_many() -> None:
    guards = Guards(Guard(GuardSettings(), FakeClock()))
    first = guards.of(NEW)
    for n in range(200):
        guards.of(Variant(ranker=f"r{n}"))
    assert sum(1 for _ in guards.beside()) == 64
    assert guards.of(NEW) is not first
    assert guards.status(Variant(model="unknown"))["state"] == "closed"
    guards.keep_only(lambda variant: variant == NEW)
    assert [variant for variant, _ in guards.beside()] == [NEW]
