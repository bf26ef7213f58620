"""The always-valid tests of experiments, beside plain sums and what must be true of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.loop.sequential import first_alarm, first_return
from loadtests.loop.users import Experiment, Traffic
from service.experiments.sequential import ALPHA, compare, half_width, p_value, share_mismatch
from service.experiments.sums import Sums

PAIRS = st.lists(st.integers(1, 9).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))), min_size=3, max_size=30)


def _sums(pairs: list[tuple[int, int]]) -> Sums:
    sums = Sums()
    for pair in pairs:
        sums = sums.with_subject((0, 0), pair)
    return sums


@settings(max_examples=40)
@given(PAIRS)
def test_the_variance_is_that_of_the_linearised_ratio(pairs: list[tuple[int, int]]) -> None:
    sums = _sums(pairs)
    n, c = np.array(pairs, np.float64).T
    if not c.sum():
        assert sums.log_rate_variance == math.inf
        return
    rate = c.sum() / n.sum()
    assert sums.rate == rate
    residuals = (c - rate * n) / c.sum()
    if float(residuals @ residuals) < 1e-12:
        return
    plain = float(residuals @ residuals) * len(n) / (len(n) - 1)
    assert sums.log_rate_variance == pytest.approx(plain, rel=1e-9)


def test_a_subject_that_returns_is_counted_as_if_it_had_come_once() -> None:
    grown = Sums().with_subject((0, 0), (1, 0)).with_subject((0, 0), (2, 1)).with_subject((1, 0), (4, 2))
    assert grown == _sums([(4, 2), (2, 1)])


def test_an_experiment_counts_each_of_its_users_once_over_its_days() -> None:
    run = Experiment(Traffic(users=50), -0.1, seed=3)
    for _ in range(60):
        run.hour()
    assert [one.subjects for one in run.sums] == [int(np.sum(run._arm == bool(arm))) for arm in (0, 1)]
    assert sum(one.lists for one in run.sums) == run.lists


@given(st.floats(1e-5, 1.0), st.floats(0.01, 1.0), st.sampled_from([0.01, 0.05]))
def test_the_interval_ends_where_the_test_begins_to_reject(variance: float, scale: float, alpha: float) -> None:
    half = half_width(variance, alpha, scale)
    assert p_value(half, variance, scale) == pytest.approx(alpha, rel=1e-6)
    assert p_value(0.0, variance, scale) == 1.0


def test_two_independent_looks_reject_less_often_than_alpha() -> None:
    """A Brownian path, looked at a hundred times, at information that grows."""
    rng = np.random.default_rng(19)
    alarms = 0
    for _ in range(400):
        path = np.cumsum(rng.standard_normal(100) * math.sqrt(200.0))
        times = 200.0 * np.arange(1, 101)
        alarms += any(p_value(b / t, 1.0 / t) <= ALPHA for b, t in zip(path.tolist(), times.tolist(), strict=True))
    assert alarms <= 400 * 0.06


def test_nothing_is_concluded_of_a_handful_of_clicks() -> None:
    few = _sums([(2, 1)] * 40)
    found = compare(few, _sums([(2, 0)] * 500))
    assert (found.lift, found.p, found.power) == (None, 1.0, 0.0)
    assert not found.worse
    assert not found.better


def test_power_and_the_least_effect_agree() -> None:
    run = Experiment(Traffic(users=4000), 0.0, seed=1)
    run.show(20_000)
    found = compare(*run.sums)
    assert found.least_effect is not None
    assert compare(*run.sums, effect=found.least_effect).power == pytest.approx(0.8, abs=1e-6)
    assert found.low is not None
    assert found.lift is not None
    assert found.high is not None
    assert found.low < found.lift < found.high


def test_equal_arms_are_rarely_called_different_and_a_bad_one_is() -> None:
    """The short form of `python -m loadtests.loop.sequential`."""
    traffic = Traffic(users=1000, hours=48, lists_per_hour=100)
    assert sum(first_alarm(traffic, 0.0, seed) is not None for seed in range(20)) <= 3
    assert first_alarm(Traffic(users=2000, hours=300, click_through=0.3), -0.3, 1) is not None
    back = [first_return(Traffic(share=0.2), -0.5, seed, 2000) for seed in range(10)]
    assert sum(one is not None for one in back) >= 8


def test_shares_that_hold_are_believed_and_others_are_not() -> None:
    assert share_mismatch([5010, 4990], [0.5, 0.5]).p == 1.0
    assert not share_mismatch([0, 0], [1, 9]).mismatch
    assert share_mismatch([5600, 4400], [0.5, 0.5]).mismatch
    assert share_mismatch([1000, 9700], [0.1, 0.9]).p > 0.05
    with pytest.raises(ValueError, match="without a share"):
        share_mismatch([1, 1], [1.0, 0.0])


@given(st.lists(st.integers(0, 60), min_size=2, max_size=4))
def test_the_mixture_over_shares_is_a_martingale(counts: list[int]) -> None:
    """The likelihood ratio after one more subject is, on average over the shares, what it was."""
    shares = [1.0 + i for i in range(len(counts))]

    def log_ratio(of: list[int]) -> float:
        prior = [1000.0 * s / sum(shares) for s in shares]
        total = math.lgamma(1000.0) - math.lgamma(1000.0 + sum(of))
        return total + sum(
            math.lgamma(p + n) - math.lgamma(p) - n * math.log(p / 1000.0) for p, n in zip(prior, of, strict=True)
        )

    after = [log_ratio([n + (i == j) for j, n in enumerate(counts)]) for i in range(len(counts))]
    mean = sum(s / sum(shares) * math.exp(one) for s, one in zip(shares, after, strict=True))
    assert mean == pytest.approx(math.exp(log_ratio(counts)), rel=1e-6)
    assert share_mismatch(counts, shares).p == pytest.approx(min(1.0, math.exp(-log_ratio(counts))), rel=1e-6)
