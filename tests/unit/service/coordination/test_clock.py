"""The clock that replicas share."""

from __future__ import annotations

import pytest

from service.coordination.clock import SharedClock
from tests.support.clock import FakeClock


def test_redis_clock_is_taken_to_be_the_time_half_way_between_call_and_reply() -> None:
    hours = FakeClock(5.0)
    clock = SharedClock(FakeClock(2_000.0), hours)
    assert clock() == pytest.approx(2_000.0)
    asked_s = clock.stamp()
    hours.advance(0.4)
    clock.heard(1_000.0, asked_s)
    assert clock.heard_once and clock.first_correction_s == pytest.approx(-1_000.2)
    assert clock() == pytest.approx(1_000.2)


def test_a_small_correction_never_turns_the_clock_back() -> None:
    hours = FakeClock(0.0)
    clock = SharedClock(FakeClock(1_000.0), hours)
    clock.heard(1_000.0, clock.stamp())
    earlier = clock()
    clock.heard(999.98, clock.stamp())
    assert clock() == earlier
    hours.advance(0.01)
    assert clock() == earlier
    hours.advance(0.02)
    assert clock() == pytest.approx(1_000.01)


def test_a_server_whose_clock_was_set_back_is_followed() -> None:
    clock = SharedClock(FakeClock(1_000.0), FakeClock(0.0))
    clock.heard(1_000.0, clock.stamp())
    assert clock() == pytest.approx(1_000.0)
    clock.heard(940.0, clock.stamp())
    assert clock() == pytest.approx(940.0)


def test_the_first_reply_corrects_a_wall_clock_that_is_slightly_ahead() -> None:
    clock = SharedClock(FakeClock(1_000.5), FakeClock(0.0))
    assert clock() == pytest.approx(1_000.5)
    clock.heard(1_000.0, clock.stamp())
    assert clock() == pytest.approx(1_000.0)
