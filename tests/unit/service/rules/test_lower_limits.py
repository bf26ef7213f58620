"""What lower limits may cost: what is guaranteed is never cut, and what is best effort has so many steps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from service.rules.limits import Limit
from service.rules.lower_limits import LowerLimits, Work
from tests.support.limited_choice import Problem, select
from tests.unit.service.rules.test_rule_selection import laminar

K, N = 20, 200


def _problem(limits: list[Limit]) -> Problem:
    return Problem(-np.arange(N, dtype=np.float64), np.zeros(N, np.int64), limits)


def _overlapping(n: int) -> list[Limit]:
    rng = np.random.default_rng(7)
    return [
        Limit(1 << i, frozenset(np.flatnonzero(rng.random(N) < 0.5).tolist()), K - i % 2, low=K // 2) for i in range(n)
    ]


def test_nested_sets_over_one_window_take_no_step_of_the_bound() -> None:
    nested = [Limit(1 << i, frozenset(range(N - 12 * (i + 1), N)), K, low=i + 1) for i in range(15)]
    work = Work()
    kinds = [[i for i, limit in enumerate(nested) if place in limit.members] for place in range(N)]
    lower = LowerLimits(nested, kinds, work)
    masks = lower.breaks([0] * 15, range(1, 16), 1)
    assert masks is not None
    assert work.left == Work.STEPS
    assert [bool(mask) for mask in masks] == [place < N - 12 * 15 for place in range(N)]


@given(laminar())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_without_a_step_left_nested_sets_give_the_same_list(
    monkeypatch: pytest.MonkeyPatch, case: tuple[list[int], int, list[Limit]]
) -> None:
    keys, k, limits = case
    asked = Problem(np.array(keys, np.float64), np.zeros(len(keys), np.int64), limits)
    with monkeypatch.context() as patched:
        chosen = select(asked, k)
        patched.setattr(Work, "STEPS", 0)
        assert select(asked, k) == chosen


def test_sets_that_overlap_end_within_the_bound_and_what_is_not_kept_is_reported() -> None:
    limits = _overlapping(16)
    work = Work()
    kinds = [[i for i, limit in enumerate(limits) if place in limit.members] for place in range(N)]
    lower = LowerLimits(limits, kinds, work)
    before = [lower.breaks([0] * 16, range(1, K + 1), 1) for _ in range(3)]
    assert work.left >= 0
    assert before[1] is not None
    chosen = select(_problem(limits), K)
    assert len(set(chosen.places)) == K
    assert chosen == select(_problem(limits), K)
    for limit in limits:
        kept = len(limit.members.intersection(chosen.places[: limit.first])) >= limit.low
        assert kept or chosen.broken & limit.bit


def test_behind_the_bound_each_lower_limit_is_kept_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Work, "STEPS", 0)
    limits = [Limit(2, frozenset(range(50, 90)), 10, low=3), Limit(1, frozenset(range(80, 120)), K, low=2)]
    chosen = select(_problem(limits), K)
    assert (chosen.broken, len(chosen.places)) == (0, K)
    assert sum(place in limits[0].members for place in chosen.places[:10]) == 3
