"""The breaker, on a fake clock."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.guard.breaker import SHARES, Breaker, BreakerSettings, BreakerState
from service.guard.error_budgets import BudgetSettings
from tests.support.clock import FakeClock

SETTINGS = BreakerSettings(window_s=5, min_attempts=50, open_s=5, hold_max_s=300, half_open_probes=20)


class Bench:
    """A breaker, and attempts at `rate` a second of which a part is late or fails."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.breaker = Breaker(SETTINGS, self.clock)
        self.allowed = 0

    def run(self, seconds: float, *, late: float = 0.0, failed: float = 0.0, rate: float = 100.0) -> list[float]:
        """Evenly spread; returns the share after every attempt."""
        shares, debt = [], [0.0, 0.0]
        for _ in range(round(seconds * rate)):
            self.clock.advance(1 / rate)
            if self.breaker.allow():
                self.allowed += 1
                debt[0] += late
                debt[1] += failed
                bad = [owed >= 0.999 for owed in debt]
                debt = [owed - it for owed, it in zip(debt, bad, strict=True)]
                self.breaker.record(late=bad[0], failed=bad[1])
            shares.append(self.breaker.share)
        return shares

    def opened(self) -> Bench:
        while self.breaker.state is not BreakerState.OPEN:
            self.run(0.1, failed=1.0)
        return self

    def half_open(self) -> Bench:
        self.opened().clock.advance(SETTINGS.open_s)
        assert self.breaker.state is BreakerState.HALF_OPEN
        return self


def test_it_stays_closed_below_the_minimum_of_attempts() -> None:
    bench = Bench()
    bench.run(0.49, failed=1.0)
    assert bench.breaker.allow()


def test_half_bad_within_its_window_opens_it() -> None:
    bench = Bench()
    bench.run(60)
    bench.run(2.6, late=0.5, failed=0.5)
    assert bench.breaker.state is BreakerState.OPEN and not bench.breaker.allow()
    assert bench.breaker.cause == "breaker_open"


@pytest.mark.parametrize(("fault", "cause"), [("late", "latency_budget"), ("failed", "error_budget")])
def test_a_budget_that_burns_too_fast_opens_it_within_seconds(fault: str, cause: str) -> None:
    bench = Bench()
    bench.run(300)
    shares = bench.run(20, **{fault: 0.3})
    assert bench.breaker.cause == cause
    assert 0.0 in shares[: 11 * 100]


def test_a_slow_burn_opens_it_within_minutes() -> None:
    bench = Bench()
    bench.run(300)
    assert 0.0 not in bench.run(60, late=0.1)
    assert 0.0 in bench.run(180, late=0.1)


def test_what_a_budget_allows_never_opens_it() -> None:
    bench = Bench()
    assert set(bench.run(3600, late=0.01, failed=0.01, rate=20)) == {1.0}


def test_an_open_breaker_allows_nothing_until_its_time_is_over() -> None:
    bench = Bench().opened()
    opened_at = bench.clock()
    while bench.breaker.state is BreakerState.OPEN:
        assert not bench.breaker.allow()
        bench.clock.advance(0.01)
    assert SETTINGS.open_s - 0.1 <= bench.clock() - opened_at <= SETTINGS.open_s + 0.01


def test_half_open_lets_a_few_per_cent_through() -> None:
    bench = Bench().half_open()
    bench.allowed = 0
    bench.run(1.0)
    assert 4 <= bench.allowed <= 7
    assert bench.breaker.share == SHARES[1]


def test_thin_traffic_is_probed_as_well() -> None:
    bench = Bench().half_open()
    bench.allowed = 0
    bench.run(5.0, rate=2.0)
    assert bench.allowed == 10


def test_of_a_model_that_hangs_no_more_than_the_set_number_of_probes_wait() -> None:
    bench = Bench().half_open()
    allowed = 0
    for _ in range(10_000):
        bench.clock.advance(0.01)
        allowed += bench.breaker.allow()
    assert allowed == SETTINGS.half_open_probes
    bench.breaker.release()
    bench.clock.advance(1.0)
    assert bench.breaker.allow()


def test_good_probes_bring_the_traffic_back_share_by_share() -> None:
    bench = Bench().half_open()
    shares = bench.run(30)
    assert sorted(set(shares)) == sorted(shares[n] for n in range(len(shares)) if n == 0 or shares[n] != shares[n - 1])
    assert set(shares) == set(SHARES[1:])
    assert bench.breaker.state is BreakerState.CLOSED


def test_bad_probes_open_it_again_for_longer_each_time() -> None:
    bench = Bench().opened()
    shares = bench.run(120, failed=1.0)
    probes = [n / 100 for n in range(1, len(shares)) if shares[n] > 0 and shares[n - 1] == 0.0]
    waits = [b - a for a, b in itertools.pairwise(probes)]
    assert all(later >= earlier - 0.1 for earlier, later in itertools.pairwise(waits))
    assert 4 <= waits[0] < 6 and 14 < waits[-1] < 17  # open_s, and the first step's part of hold_max_s
    assert set(shares) == {0.0, SHARES[1]}


def test_a_single_bad_probe_is_no_verdict() -> None:
    bench = Bench().half_open()
    assert bench.breaker.allow()
    bench.breaker.record(late=True, failed=False)
    assert bench.breaker.share == SHARES[1]
    bench.run(30)
    assert bench.breaker.state is BreakerState.CLOSED


def test_a_share_that_is_too_much_goes_back_to_the_one_before() -> None:
    bench = Bench().half_open()
    while bench.breaker.share < 0.4:
        bench.run(0.1)
    before = bench.breaker.share
    while bench.breaker.share == before:
        bench.run(0.01, late=1.0)
    assert bench.breaker.share == 0.2
    assert bench.breaker.cause == "latency_budget"


def test_news_of_earlier_attempts_do_not_judge_a_later_step() -> None:
    bench = Bench().half_open()
    for _ in range(100):
        bench.breaker.record(late=False, failed=True, seconds=SETTINGS.open_s + 1.0)
    assert bench.breaker.share == SHARES[1]


def test_back_in_service_it_starts_with_a_clean_record() -> None:
    bench = Bench().half_open()
    bench.run(30)
    assert bench.breaker.state is BreakerState.CLOSED
    bench.run(1, failed=0.05)  # with the failures of before it would be far above every limit
    assert bench.breaker.state is BreakerState.CLOSED


def test_a_share_that_was_good_for_long_and_turns_bad_is_noticed_at_once() -> None:
    bench = Bench().half_open()
    while bench.breaker.share < 0.8:
        bench.run(0.1)
    bench.run(1)
    while bench.breaker.share == 0.8:  # too much once: held back for a while from now on
        bench.run(0.1, failed=1.0)
    while bench.breaker.share != 0.4:
        bench.run(0.1, failed=0.0)
    bench.run(3)
    held = bench.breaker.share
    bad = bench.run(4, failed=1.0)
    assert min(bad) < held


def test_quiet_minutes_forget_how_often_a_share_failed() -> None:
    bench = Bench().opened()
    bench.run(120, failed=1.0)
    bench.run(60)
    assert bench.breaker.share == 1.0
    bench.run(SETTINGS.hold_max_s + 1, rate=20)
    bench.opened()
    opened_at = bench.clock()
    while bench.breaker.share == 0.0:
        bench.clock.advance(0.1)
    assert bench.clock() - opened_at <= SETTINGS.open_s + 0.1


# A model that stays in use is asked every time, which takes long to try: an hour of it says as much.
@pytest.mark.parametrize(("allowed", "hours"), [(0.2, 1), (0.4, 4), (0.5, 4)], ids=["a-fifth", "two-fifths", "half"])
def test_loose_objectives_do_not_flap(allowed: float, hours: int) -> None:
    """A little worse than allowed, and near to what opens the breaker, for hours: as the holds permit."""
    budgets = BudgetSettings(late_share=allowed, failed_share=allowed)
    clock = FakeClock()
    breaker = Breaker(BreakerSettings(budgets=budgets), clock)
    chance, share, switches = random.Random(1), 1.0, 0
    for _ in range(hours * 3600 * 20):
        clock.advance(0.05)
        if breaker.allow():
            breaker.record(late=chance.random() < 1.1 * allowed, failed=False)
        switches += (breaker.share >= 0.5) is not (share >= 0.5)
        share = breaker.share
    assert switches <= hours * 15


@given(st.lists(st.tuples(st.sampled_from(["ok", "late", "failed", "release"]), st.floats(0, 30)), max_size=150))
def test_there_is_always_a_way_back(steps: list[tuple[str, float]]) -> None:
    """Whatever happened, a model that works again is served to everybody within the longest hold and the way up."""
    bench = Bench()
    for outcome, seconds in steps:
        bench.clock.advance(seconds)
        if bench.breaker.allow():
            if outcome == "release":
                bench.breaker.release()
            else:
                for _ in range(60):
                    bench.breaker.record(late=outcome == "late", failed=outcome == "failed")
    bench.run(2 * SETTINGS.hold_max_s, rate=10)
    assert bench.breaker.state is BreakerState.CLOSED
