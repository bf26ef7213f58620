"""Which rung is chosen, on a fake clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.breaker import BreakerSettings
from service.deadline import Deadline
from service.guard import Decision, Guard, GuardSettings, ModelRung, ModeName, Outcome
from tests.clock import FakeClock

SETTINGS = GuardSettings(
    breaker=BreakerSettings(min_attempts=4, open_s=5, half_open_probes=2),
    max_batch=8,
    reserve_ms=5,
    retry_s=0.25,
)


class Bench:
    def __init__(self, mode: ModeName = "auto") -> None:
        self.clock = FakeClock()
        self.mode: ModeName = mode
        self.guard = Guard(SETTINGS, self.clock, lambda: self.mode)

    def decide(self, milliseconds: float, queue_depth: int = 0) -> Decision:
        return self.guard.decide(Deadline.after(milliseconds / 1000, self.clock), queue_depth)

    def measured(self, full_ms: float, narrow_ms: float) -> None:
        self.guard.measured("full", full_ms / 1000)
        self.guard.measured("narrow", narrow_ms / 1000)


def test_full_is_the_first_choice_before_anything_was_measured() -> None:
    assert Bench().decide(80) == Decision("full")


def test_a_passed_deadline_is_answered_by_popularity() -> None:
    assert Bench().decide(0) == Decision("popular", "deadline")


def test_a_deadline_that_only_leaves_the_reserve_starts_below_the_model() -> None:
    assert Bench().decide(4) == Decision("item_cf", "deadline")


def test_a_rung_that_does_not_fit_is_skipped() -> None:
    bench = Bench()
    bench.measured(full_ms=40, narrow_ms=10)
    assert bench.decide(80) == Decision("full")
    assert bench.decide(30) == Decision("narrow", "deadline")
    assert bench.decide(12) == Decision("item_cf", "deadline")


def test_the_queue_ahead_is_part_of_the_predicted_wait() -> None:
    bench = Bench()
    bench.measured(full_ms=20, narrow_ms=5)
    assert bench.decide(80, queue_depth=16) == Decision("full")  # 3 runs of 20 ms in 75 ms
    assert bench.decide(80, queue_depth=17) == Decision("narrow", "overload")
    assert bench.decide(80, queue_depth=200) == Decision("item_cf", "overload")


def test_a_late_event_loop_is_part_of_the_predicted_wait() -> None:
    bench = Bench()
    bench.measured(full_ms=40, narrow_ms=39)
    for _ in range(50):
        bench.guard.lagged(0.050)
    assert bench.decide(80) == Decision("item_cf", "deadline")


def test_a_stall_of_the_event_loop_that_is_over_costs_nothing() -> None:
    bench = Bench()
    bench.measured(full_ms=40, narrow_ms=39)
    for lag_s in (0.0, 0.0, 0.0, 5.0, 0.0):
        bench.guard.lagged(lag_s)
    assert bench.decide(80) == Decision("full")


def test_one_slow_run_does_not_shut_a_rung_for_good() -> None:
    bench = Bench()
    bench.measured(full_ms=900, narrow_ms=900)
    assert bench.decide(80).rung == "item_cf"
    bench.clock.advance(0.25)
    assert bench.decide(80, queue_depth=1).rung == "item_cf"  # only an idle engine is asked again
    assert bench.decide(80).rung == "full"
    assert bench.decide(80).rung == "narrow"
    assert bench.decide(80).rung == "item_cf"


def test_late_and_failed_attempts_open_the_breaker() -> None:
    bench = Bench()
    for outcome in (Outcome.LATE, Outcome.FAILED) * 2:
        bench.guard.observe(outcome, 0.09)
    assert bench.decide(80) == Decision("item_cf", "breaker_open")
    assert bench.guard.status()["breaker"] == "open"


def test_probes_decide_the_way_back() -> None:
    bench = Bench()
    for _ in range(4):
        bench.guard.observe(Outcome.FAILED)
    bench.clock.advance(5)
    assert [bench.decide(80).rung for _ in range(3)] == ["full", "full", "item_cf"]
    bench.guard.observe(Outcome.UNUSED)
    assert bench.decide(80).rung == "full"
    bench.guard.observe(Outcome.OK)
    bench.guard.observe(Outcome.OK)
    assert bench.guard.status()["breaker"] == "closed"


def test_a_request_that_would_not_reach_the_model_takes_no_probe() -> None:
    bench = Bench()
    for _ in range(4):
        bench.guard.observe(Outcome.FAILED)
    bench.measured(full_ms=40, narrow_ms=40)
    bench.clock.advance(5)
    for _ in range(10):
        assert bench.decide(20, queue_depth=1) == Decision("item_cf", "deadline")
    assert bench.decide(80).rung == "full"


def test_forced_fallback_never_asks_the_model() -> None:
    assert Bench("fallback").decide(80) == Decision("item_cf", "forced")


def test_forced_model_ignores_breaker_and_prediction_but_not_the_deadline() -> None:
    bench = Bench("model")
    bench.measured(full_ms=900, narrow_ms=900)
    for _ in range(4):
        bench.guard.observe(Outcome.FAILED)
    assert bench.decide(80, queue_depth=50) == Decision("full")
    assert bench.decide(3) == Decision("item_cf", "deadline")


def test_a_forced_mode_ends_when_it_is_taken_back() -> None:
    bench = Bench("fallback")
    bench.mode = "auto"
    assert bench.decide(80) == Decision("full")


def test_a_long_history_has_a_price_of_its_own() -> None:
    bench = Bench()
    deadline = Deadline.after(0.08, bench.clock)
    assert bench.guard.encoding_fits("full", deadline, 0, 200)  # nothing is known yet
    bench.measured(full_ms=10, narrow_ms=5)
    bench.guard.measured("full", 0.110, events=100)
    assert bench.guard.predicted_s("full", 0) == pytest.approx(0.010)
    assert bench.guard.encoding_s(100) == pytest.approx(0.100)
    assert bench.guard.encoding_s(3) == 0.0
    assert bench.guard.encoding_fits("full", deadline, 0, 60)
    assert not bench.guard.encoding_fits("full", deadline, 0, 75)
    assert not bench.guard.encoding_fits("full", deadline, 8, 65)  # a run is ahead
    assert bench.guard.encoding_fits("full", deadline, 0, 8)
    bench.mode = "model"
    assert bench.guard.encoding_fits("full", deadline, 0, 200)


def test_budgets_burn_by_late_and_failed_attempts_only() -> None:
    bench = Bench()
    for outcome in (*[Outcome.OK] * 97, *[Outcome.LATE] * 2, Outcome.FAILED, *[Outcome.UNUSED] * 50):
        bench.guard.observe(outcome)
    rates = bench.guard.status()["budgets"]["burn_rate"]
    assert rates["latency"]["5m"] == pytest.approx(2.0)
    assert rates["errors"]["5m"] == pytest.approx(1.0)


@given(
    st.floats(0, 200), st.integers(0, 500), st.floats(0, 300), st.floats(0, 300),
    st.sampled_from(["auto", "fallback", "model"]),
)  # fmt: skip
def test_every_request_gets_a_rung_and_every_lower_rung_a_reason(
    milliseconds: float, depth: int, full_ms: float, narrow_ms: float, mode: ModeName
) -> None:
    bench = Bench(mode)
    bench.measured(full_ms, narrow_ms)
    decision = bench.decide(milliseconds, depth)
    assert decision.asks_the_model == (decision.rung in ("full", "narrow"))
    assert (decision.rung == "full") == (decision.reason is None)
    if mode == "auto" and decision.asks_the_model:
        rung: ModelRung = "full" if decision.rung == "full" else "narrow"
        assert bench.guard.predicted_s(rung, depth) <= milliseconds / 1000 - 0.005
