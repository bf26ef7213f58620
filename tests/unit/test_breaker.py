"""The breaker, on a fake clock."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from service.breaker import Breaker, BreakerSettings, BreakerState
from tests.clock import FakeClock

SETTINGS = BreakerSettings(window_s=10, min_attempts=10, failure_ratio=0.5, open_s=5, half_open_probes=4)


def breaker() -> tuple[Breaker, FakeClock]:
    clock = FakeClock()
    return Breaker(SETTINGS, clock), clock


def opened() -> tuple[Breaker, FakeClock]:
    one, clock = breaker()
    for _ in range(10):
        one.record(False)
    assert one.state is BreakerState.OPEN
    return one, clock


def half_open() -> tuple[Breaker, FakeClock]:
    one, clock = opened()
    clock.advance(SETTINGS.open_s)
    assert one.state is BreakerState.HALF_OPEN
    return one, clock


def test_it_stays_closed_below_the_minimum_of_attempts() -> None:
    one, _ = breaker()
    for _ in range(9):
        one.record(False)
    assert one.allow()


def test_it_opens_at_the_failure_ratio() -> None:
    one, _ = breaker()
    for ok in [True, False] * 4 + [True]:
        one.record(ok)
    assert one.allow()
    one.record(False)
    assert one.state is BreakerState.OPEN and not one.allow()


def test_attempts_older_than_the_window_do_not_count() -> None:
    one, clock = breaker()
    for _ in range(9):
        one.record(False)
    clock.advance(SETTINGS.window_s)
    one.record(False)
    assert one.state is BreakerState.CLOSED and one.counts() == (1, 1)


def test_an_open_breaker_allows_nothing_until_its_time_is_over() -> None:
    one, clock = opened()
    clock.advance(SETTINGS.open_s - 0.001)
    assert not one.allow()
    clock.advance(0.001)
    assert one.allow()


def test_half_open_lets_through_as_many_probes_as_it_may() -> None:
    one, _ = half_open()
    assert [one.allow() for _ in range(6)] == [True] * 4 + [False] * 2


def test_good_probes_close_it_with_a_clean_record() -> None:
    one, _ = half_open()
    for _ in range(4):
        assert one.allow()
        one.record(True)
    assert one.state is BreakerState.CLOSED and one.counts() == (0, 0)


def test_bad_probes_open_it_again_for_the_full_time() -> None:
    one, clock = half_open()
    for _ in range(2):
        assert one.allow()
        one.record(False)
    assert one.state is BreakerState.OPEN
    clock.advance(SETTINGS.open_s - 0.001)
    assert not one.allow()


def test_a_released_probe_can_be_used_again() -> None:
    one, _ = half_open()
    for _ in range(4):
        one.allow()
    assert not one.allow()
    one.release()
    assert one.allow()


def test_a_probe_that_never_reports_does_not_block_the_way_back() -> None:
    one, clock = half_open()
    for _ in range(4):
        one.allow()
    clock.advance(SETTINGS.open_s)
    for _ in range(4):
        assert one.allow()
        one.record(True)
    assert one.state is BreakerState.CLOSED


def test_news_of_old_attempts_do_not_change_an_open_breaker() -> None:
    one, clock = opened()
    one.record(True)
    one.record(False)
    clock.advance(SETTINGS.open_s)
    one.record(False)
    assert one.state is BreakerState.HALF_OPEN and one.allow()


@given(st.lists(st.tuples(st.sampled_from(["allow", "ok", "bad", "release"]), st.floats(0, 8)), max_size=80))
def test_there_is_always_a_way_back(steps: list[tuple[str, float]]) -> None:
    one, clock = breaker()
    for action, seconds in steps:
        clock.advance(seconds)
        if action == "allow":
            one.allow()
        elif action == "release":
            one.release()
        else:
            one.record(action == "ok")
    clock.advance(max(SETTINGS.window_s, 2 * SETTINGS.open_s))
    for _ in range(SETTINGS.half_open_probes):
        assert one.allow()
        one.record(True)
    clock.advance(SETTINGS.window_s)
    assert one.state is BreakerState.CLOSED
