"""The guard over hours of synthetic traffic, on a fake clock: it finds a share that holds, and lists do not flap."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from service.batching.run_costs import Forecast
from service.common.deadline import Deadline
from service.guard.guard import Guard, GuardSettings, Outcome
from tests.support.clock import FakeClock

HOUR = 3600.0
RATE = 20.0
IDLE = Forecast(0.001, 0.001, idle=True)

# What an attempt at time t (seconds) comes to, while the model gets `load` attempts a second.
Model = Callable[[float, float], float]


@dataclass
class Hours:
    """What came of the traffic, minute by minute: the part of the requests that the model answered."""

    served: list[float] = field(default_factory=list)
    switches: list[float] = field(default_factory=list)
    """When most of the traffic went from the model to item-CF, or back."""

    def share(self, start_h: float, end_h: float) -> float:
        part = self.served[int(start_h * 60) : int(end_h * 60)]
        return sum(part) / len(part)


def simulate(bad: Model, hours: float, *, rate: float = RATE, outcome: Outcome = Outcome.LATE) -> Hours:
    """`bad(t, load)` is the chance that an attempt is late or fails."""
    clock, chance, seen = FakeClock(0.0), random.Random(7), Hours()
    guard = Guard(GuardSettings(), clock)
    load, most, asked = rate, True, 0
    for n in range(1, round(hours * HOUR * rate) + 1):
        clock.now = n / rate
        model = guard.decide(Deadline.after(0.08, clock), lambda _: IDLE).asks_the_model
        load += ((rate if model else 0.0) - load) / (2.0 * rate)  # over the last two seconds or so
        if model:
            asked += 1
            guard.observe(outcome if chance.random() < bad(clock.now, load) else Outcome.OK)
        if (guard.breaker.share >= 0.5) is not most:
            most = not most
            seen.switches.append(clock.now)
        if n % round(60 * rate) == 0:
            seen.served.append(asked / (60 * rate))
            asked = 0
    return seen


def test_a_healthy_model_is_never_left_alone() -> None:
    seen = simulate(lambda _t, _load: 0.002, hours=3)
    assert not seen.switches and min(seen.served) == 1.0


@pytest.mark.parametrize("outcome", [Outcome.LATE, Outcome.FAILED], ids=["late", "failed"])
def test_a_breach_moves_the_traffic_within_seconds_and_back_when_it_is_over(outcome: Outcome) -> None:
    seen = simulate(lambda t, _: 0.35 if HOUR <= t < HOUR + 300 else 0.002, hours=2, outcome=outcome)
    assert len(seen.switches) == 2
    away, back = seen.switches
    assert HOUR < away < HOUR + 15
    assert HOUR + 300 < back < HOUR + 360


def test_a_model_that_stays_broken_costs_a_few_probes() -> None:
    seen = simulate(lambda t, _: 1.0 if t > 60 else 0.0, hours=3, outcome=Outcome.FAILED)
    assert len(seen.switches) == 1
    assert seen.share(0.1, 3) < 0.01


def test_a_slow_drift_is_noticed_and_switches_once() -> None:
    """From no late attempt to every third in four hours."""
    seen = simulate(lambda t, _: t / HOUR / 12, hours=4)
    allowed_until = next(n / 60 for n, share in enumerate(seen.served) if share < 0.9)
    assert 0.5 < allowed_until < 1.5  # between 4 % and 12 % of late attempts
    late_hours = seen.share(3, 4)
    assert late_hours < 0.1
    assert len(seen.switches) < 12


def test_an_oscillating_model_does_not_make_lists_flap() -> None:
    """A minute well, a minute broken, for six hours: 360 changes of the model."""
    seen = simulate(lambda t, _: 0.5 if t % 120 > 60 else 0.0, hours=6)
    by_hour = [sum(h * HOUR <= t < (h + 1) * HOUR for t in seen.switches) for h in range(6)]
    assert by_hour[0] <= 36
    assert max(by_hour[1:]) <= 30  # one try of the larger shares every four minutes
    assert 0.01 < seen.share(1, 6) < 0.5


@pytest.mark.parametrize("bears", [0.3, 0.6, 0.9], ids=["a-third", "two-thirds", "nearly-all"])
def test_a_model_that_works_only_at_low_load_keeps_the_load_it_bears(bears: float) -> None:
    """More than its part of the traffic, and half of its attempts are late."""
    seen = simulate(lambda _t, load: 0.5 if load > bears * RATE else 0.002, hours=4)
    held = max(share for share in (0.05, 0.1, 0.2, 0.4, 0.8) if share < bears)
    assert seen.share(1, 4) > 0.85 * held
    tries = sum(t > HOUR for t in seen.switches) / 2
    assert tries <= 3 * HOUR / (300 * 0.8) + 1  # of the first share that is too much, as often as it may be


def test_chance_moves_nobody() -> None:
    """Bad attempts at the very rate that the budget allows, for a day."""
    seen = simulate(lambda _t, _load: 0.01, hours=24, rate=3.0)
    assert len(seen.switches) <= 2
    assert math.isclose(seen.share(0, 24), 1.0, abs_tol=0.01)
