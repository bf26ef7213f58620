"""Which rung is chosen, on a fake clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.batching.run_costs import Forecast, with_headroom
from service.common.deadline import Deadline
from service.guard.breaker import BreakerSettings
from service.guard.guard import Decision, Guard, GuardSettings, ModelRung, ModeName, Outcome
from tests.support.clock import FakeClock

SETTINGS = GuardSettings(
    breaker=BreakerSettings(min_attempts=4, open_s=5, half_open_probes=2),
    reserve_ms=5,
    trial_s=0.25,
)
HEADROOM = with_headroom(1.0)


class Bench:
    def __init__(self, mode: ModeName = "auto") -> None:
        self.clock = FakeClock()
        self.mode: ModeName = mode
        self.guard = Guard(SETTINGS, self.clock, lambda: self.mode)
        self.forecasts: dict[ModelRung, Forecast] = {"full": Forecast(), "narrow": Forecast()}

    def decide(self, milliseconds: float) -> Decision:
        return self.guard.decide(Deadline.after(milliseconds / 1000, self.clock), self.forecasts.__getitem__)

    def runs(self, full_ms: float, narrow_ms: float, *, ahead_ms: float = 0.0) -> None:
        """What runs take with their headroom, and how long the queue is."""
        for rung, own in (("full", full_ms), ("narrow", narrow_ms)):
            alone = own / 1000 / HEADROOM
            forecast = Forecast(alone + ahead_ms / 1000 / HEADROOM, alone, idle=not ahead_ms)
            self.forecasts["full" if rung == "full" else "narrow"] = forecast

    def opened(self) -> Bench:
        for _ in range(4):
            self.guard.observe(Outcome.FAILED)
        assert self.guard.status()["breaker"] == "open"
        return self


def test_full_is_the_first_choice_before_anything_was_measured() -> None:
    assert Bench().decide(80) == Decision("full")


def test_a_passed_deadline_is_answered_by_popularity() -> None:
    assert Bench().decide(0) == Decision("popular", "deadline")


def test_a_deadline_that_only_leaves_the_reserve_starts_below_the_model() -> None:
    assert Bench().decide(4) == Decision("item_cf", "deadline")


def test_a_rung_that_would_not_be_done_in_time_is_not_begun() -> None:
    bench = Bench()
    bench.runs(full_ms=40, narrow_ms=10, ahead_ms=1)
    assert bench.decide(80) == Decision("full")
    assert bench.decide(30) == Decision("narrow", "deadline")
    assert bench.decide(12) == Decision("item_cf", "deadline")


def test_a_rung_that_was_slow_is_tried_again_also_where_a_lower_one_fits() -> None:
    bench = Bench()
    bench.runs(full_ms=900, narrow_ms=10)
    assert [bench.decide(80).rung for _ in range(3)] == ["full", "narrow", "narrow"]
    bench.clock.advance(0.25)
    assert [bench.decide(80).rung for _ in range(3)] == ["full", "narrow", "narrow"]


def test_what_is_ahead_is_part_of_the_forecast() -> None:
    bench = Bench()
    bench.runs(full_ms=20, narrow_ms=5, ahead_ms=54.9)
    assert bench.decide(80) == Decision("full")
    bench.runs(full_ms=20, narrow_ms=5, ahead_ms=60)
    assert bench.decide(80) == Decision("narrow", "overload")
    bench.runs(full_ms=20, narrow_ms=5, ahead_ms=71)
    assert bench.decide(80) == Decision("item_cf", "overload")


def test_forecasts_that_fall_short_get_more_headroom_but_no_more_than_a_quarter() -> None:
    bench = Bench()
    bench.runs(full_ms=60, narrow_ms=60, ahead_ms=1)
    assert bench.decide(80).rung == "full"
    for n in range(60):  # of 48 ms and their headroom, one in ten takes 75
        bench.guard.observe(Outcome.OK, 0.075 if n % 10 == 0 else 0.048, Decision("full", forecast_s=0.048))
    assert bench.decide(80).rung == "item_cf"
    assert bench.decide(85).rung == "full"
    for _ in range(60):
        bench.guard.observe(Outcome.OK, 9.0, Decision("full", forecast_s=0.048))
    bench.clock.advance(300)
    assert bench.guard.fits(0.06 / HEADROOM, Deadline.after(0.0801, bench.clock))
    assert not bench.guard.fits(0.06 / HEADROOM, Deadline.after(0.0799, bench.clock))


def test_a_late_event_loop_is_part_of_the_forecast() -> None:
    bench = Bench()
    bench.runs(full_ms=40, narrow_ms=39, ahead_ms=1)
    for _ in range(50):
        bench.guard.lagged(0.050)
    assert bench.decide(80) == Decision("item_cf", "deadline")


def test_a_stall_of_the_event_loop_that_is_over_costs_nothing() -> None:
    bench = Bench()
    bench.runs(full_ms=40, narrow_ms=39)
    for lag_s in (0.0, 0.0, 0.0, 5.0, 0.0):
        bench.guard.lagged(lag_s)
    assert bench.decide(80) == Decision("full")


def test_short_stalls_that_come_again_and_again_are_kept_back_from_the_deadline() -> None:
    bench = Bench()
    bench.runs(full_ms=59, narrow_ms=59, ahead_ms=1)
    for n in range(500):
        bench.guard.lagged(0.016 if n % 50 == 0 else 0.0)
    assert bench.guard.reserve_s(0.080) == 0.016
    assert bench.decide(80) == Decision("full")  # 64 ms are left
    assert bench.decide(70) == Decision("item_cf", "deadline")
    assert bench.guard.reserve_s(0.020) == 0.008  # never so much that nothing is left to answer with
    for _ in range(500):
        bench.guard.lagged(0.0)
    assert bench.guard.reserve_s(0.080) == 0.005
    assert bench.decide(70) == Decision("full")


def test_another_model_does_not_inherit_the_breaker() -> None:
    bench = Bench().opened()
    bench.guard.model_changed()
    assert bench.guard.status()["breaker"] == "closed"
    assert bench.decide(80) == Decision("full")


def test_the_windows_of_the_budgets_outlive_a_change_of_the_model() -> None:
    bench = Bench().opened()
    bench.guard.answered("item_cf", "breaker_open")
    bench.clock.advance(1)
    before = bench.guard.status()["budgets"]["burn_rate"]
    bench.guard.model_changed()
    after = bench.guard.status()["budgets"]
    assert after["burn_rate"] == before and before["served"]["1h"] > 0
    # Nobody has attempted the new model yet.
    assert after["attempts"]["total"] > 0 and after["attempts"]["typical_ms"] is None
    for _ in range(3):  # one less than opens the breaker
        bench.guard.observe(Outcome.FAILED)
    assert bench.guard.status()["breaker"] == "closed"  # what the former model did breaks no rule for this one


def test_lists_that_an_operator_forced_burn_no_budget() -> None:
    bench = Bench()
    for _ in range(20):
        bench.guard.answered("item_cf", "forced")
    assert set(bench.guard.status()["budgets"]["burn_rate"]["served"].values()) == {0.0}
    bench.guard.answered("popular", "deadline")
    bench.guard.answered("full")
    assert bench.guard.status()["budgets"]["burn_rate"]["served"]["1m"] == pytest.approx(0.5 / 0.05)


def test_a_slow_model_is_asked_again_now_and_then() -> None:
    bench = Bench()
    bench.runs(full_ms=900, narrow_ms=900)
    assert [bench.decide(80).rung for _ in range(3)] == ["full", "item_cf", "item_cf"]
    bench.clock.advance(0.25)
    bench.runs(full_ms=900, narrow_ms=900, ahead_ms=1)
    assert bench.decide(80).rung == "item_cf"  # only an idle engine is asked again
    bench.runs(full_ms=900, narrow_ms=900)
    assert [bench.decide(80).rung for _ in range(3)] == ["full", "item_cf", "item_cf"]


def test_a_trial_that_is_late_is_no_news_and_one_that_fails_is() -> None:
    bench = Bench()
    bench.runs(full_ms=900, narrow_ms=900)
    for outcome, state in ((Outcome.LATE, "closed"), (Outcome.FAILED, "open")):
        for _ in range(10):
            bench.clock.advance(0.25)
            decision = bench.decide(80)
            if decision.asks_the_model:
                assert decision.trial
                bench.guard.observe(outcome, 0.07, decision)
        assert bench.guard.status()["breaker"] == state


def test_an_engine_that_was_just_measured_is_not_tried() -> None:
    bench = Bench()
    slow = Forecast(0.04, 0.04, idle=True, measured=bench.clock())
    bench.forecasts = {"full": slow, "narrow": Forecast(0.001, 0.001)}
    bench.clock.advance(0.2)
    assert bench.decide(20) == Decision("narrow", "deadline")
    bench.clock.advance(0.05)
    assert bench.decide(20) == Decision("full")


def test_late_and_failed_attempts_open_the_breaker() -> None:
    bench = Bench()
    bench.clock.advance(1)
    for outcome in (Outcome.LATE, Outcome.FAILED) * 2:
        bench.guard.observe(outcome, 0.09)
    assert bench.decide(80) == Decision("item_cf", "breaker_open")
    assert bench.guard.status()["breaker"] == "open"


@pytest.mark.parametrize(
    ("outcome", "reason"), [(Outcome.LATE, "latency_budget"), (Outcome.FAILED, "error_budget")], ids=["late", "failed"]
)
def test_a_breached_budget_is_the_reason_of_the_answers(outcome: Outcome, reason: str) -> None:
    bench = Bench()
    for n in range(200):
        bench.clock.advance(0.1)
        if bench.decide(80).rung == "full":
            bench.guard.observe(outcome if n % 4 == 0 else Outcome.OK)
    seen = bench.decide(80)
    assert (seen.rung, seen.reason) == ("item_cf", reason)
    assert bench.guard.status()["budgets"]["cause"] == reason


def test_probes_decide_the_way_back() -> None:
    bench = Bench().opened()
    bench.clock.advance(5)
    asked = 0
    for _ in range(4000):
        bench.clock.advance(0.01)
        if bench.decide(80).rung == "full":
            asked += 1
            bench.guard.observe(Outcome.OK)
        if bench.guard.status()["breaker"] == "closed":
            break
    assert bench.decide(80) == Decision("full")
    assert asked < 2000


def test_a_probe_that_says_nothing_is_made_again() -> None:
    bench = Bench().opened()
    bench.clock.advance(5)
    assert bench.decide(80).rung == "full"
    bench.guard.observe(Outcome.UNUSED)
    assert bench.decide(80).rung == "full"


def test_a_request_that_would_not_reach_the_model_takes_no_probe() -> None:
    bench = Bench().opened()
    bench.runs(full_ms=40, narrow_ms=40, ahead_ms=1)
    bench.clock.advance(5)
    for _ in range(10):
        assert bench.decide(20) == Decision("item_cf", "deadline")
    assert bench.decide(80).rung == "full"


def test_forced_fallback_never_asks_the_model() -> None:
    assert Bench("fallback").decide(80) == Decision("item_cf", "forced")


def test_forced_model_ignores_breaker_and_forecast_but_not_the_deadline() -> None:
    bench = Bench("model")
    bench.opened().runs(full_ms=900, narrow_ms=900, ahead_ms=1)
    assert bench.decide(80) == Decision("full")
    assert bench.decide(3) == Decision("item_cf", "deadline")


def test_a_forced_mode_ends_when_it_is_taken_back() -> None:
    bench = Bench("fallback")
    bench.mode = "auto"
    assert bench.decide(80) == Decision("full")


def test_work_that_shows_late_must_fit_as_well() -> None:
    bench = Bench()
    deadline = Deadline.after(0.08 * HEADROOM, bench.clock)
    assert bench.guard.fits(0.0799, deadline)
    assert not bench.guard.fits(0.081, deadline)
    for _ in range(5):
        bench.guard.lagged(0.010)
    assert not bench.guard.fits(0.075, deadline)
    bench.mode = "model"
    assert bench.guard.fits(9.0, deadline)


def test_budgets_burn_by_late_and_failed_attempts_only() -> None:
    bench = Bench()
    bench.guard = Guard(GuardSettings(breaker=BreakerSettings(min_attempts=1000)), bench.clock)
    for outcome in (*[Outcome.OK] * 97, *[Outcome.LATE] * 2, Outcome.FAILED, *[Outcome.UNUSED] * 50):
        bench.guard.observe(outcome)
    bench.guard.answered("full")
    bench.guard.answered("popular")
    rates = bench.guard.status()["budgets"]["burn_rate"]
    assert rates["latency"]["5m"] == pytest.approx(2.0)
    assert rates["errors"]["5m"] == pytest.approx(1.0)
    assert rates["served"]["5m"] == pytest.approx(10.0)


@given(
    st.floats(0, 200), st.floats(0, 300), st.floats(0, 300), st.floats(0, 300),
    st.sampled_from(["auto", "fallback", "model"]),
)  # fmt: skip
def test_every_request_gets_a_rung_and_every_lower_rung_a_reason(
    milliseconds: float, ahead_ms: float, full_ms: float, narrow_ms: float, mode: ModeName
) -> None:
    bench = Bench(mode)
    bench.runs(full_ms, narrow_ms, ahead_ms=ahead_ms)
    decision = bench.decide(milliseconds)
    assert decision.asks_the_model == (decision.rung in ("full", "narrow"))
    assert (decision.rung == "full") == (decision.reason is None)
    if mode == "auto" and decision.asks_the_model and ahead_ms:
        rung: ModelRung = "full" if decision.rung == "full" else "narrow"
        assert with_headroom(bench.forecasts[rung].seconds) <= milliseconds / 1000 - 0.005
