"""Off-policy estimates: exact where they can be, and right on average in a world whose truth is known."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest

from loadtests.loop.coverage import Tally, replicate
from loadtests.loop.slates import Setting, World
from model.online.estimators import ESTIMATORS, Influenced, Terms, effective_sample, estimate, mean, weighted_mean
from model.online.marginals import Law, conditionals, marginals
from model.online.reward_model import bins, fit


def terms_of(weight: np.ndarray, reward: np.ndarray, subject: np.ndarray) -> Terms:
    zeros = np.zeros(weight.shape)
    return Terms(
        subject, int(subject.max()) + 1, np.ones(weight.shape, bool), weight, reward, zeros, zeros[:, 0], weight[:, 0]
    )


def test_weights_of_one_give_the_mean_of_the_log_with_its_clustered_interval() -> None:
    rng = np.random.default_rng(0)
    subject, reward = rng.integers(40, size=300), rng.integers(2, size=(300, 3)).astype(float)
    terms = terms_of(np.ones((300, 3)), reward, subject)
    sums, counts = np.bincount(subject, reward.sum(axis=1)), np.bincount(subject)
    value = sums.sum() / 300
    error = np.sqrt(40 / 39 * ((sums - value * counts) ** 2).sum()) / 300
    for name in ESTIMATORS:
        ends = estimate(terms, name).interval()
        assert estimate(terms, name).value == pytest.approx(value)
        assert ends == pytest.approx((value - 2.02269 * error, value + 2.02269 * error), rel=1e-5), name
    assert effective_sample(terms) == pytest.approx(counts.sum() ** 2 / (counts**2).sum())


def test_item_position_weights_are_unbiased_over_all_lists() -> None:
    rng = np.random.default_rng(1)
    scores, logged, target, k = rng.normal(size=5), Law(1.5), Law(0.5, 0.8), 3
    earns = rng.random((5, k))
    p0, p1 = marginals(scores, logged, k), marginals(scores, target, k)
    r = rng.random((5, k))
    ips = dr = whole = 0.0
    for order in permutations(range(5), k):
        rows, positions = np.array(order), np.arange(k)
        chance = np.exp(conditionals(scores, logged, rows).sum())
        weight, earned = p1[rows, positions] / p0[rows, positions], earns[rows, positions]
        ips += chance * (weight * earned).sum()
        dr += chance * ((p1 * r).sum() + (weight * (earned - r[rows, positions])).sum())
        whole += np.exp(conditionals(scores, target, rows).sum()) * earned.sum()
    truth = (p1 * earns).sum()
    assert [ips, dr, whole] == pytest.approx([truth] * 3, rel=1e-6)


def test_self_normalised_influence_is_its_derivative() -> None:
    rng = np.random.default_rng(2)
    weight, reward, subject = rng.exponential(size=(60, 2)), rng.random((60, 2)), np.arange(60) // 2
    found = estimate(terms_of(weight, reward, subject), "snips")
    copies = np.r_[np.arange(60), np.flatnonzero(subject == 7)]
    more = estimate(terms_of(weight[copies], reward[copies], subject[copies]), "snips")
    # A subject that counts twice moves the value by about its influence.
    assert more.value - found.value == pytest.approx(found.influence[7], rel=0.1, abs=1e-4)
    assert found.influence.sum() == pytest.approx(0, abs=1e-9)


def test_shares_and_differences_keep_subjects_together() -> None:
    rng = np.random.default_rng(3)
    subject, earned = np.arange(50), rng.random((50, 1))
    one = mean(terms_of(np.ones((50, 1)), earned, subject), earned[:, 0])
    parts, shares, lists = dict[str, Influenced](), dict[str, Influenced](), rng.random(50) < 0.3
    for name, inside in {"a": lists, "b": ~lists}.items():
        terms = replace(terms_of(np.ones((inside.sum(), 1)), earned[inside], subject[inside]), subjects=50)
        parts[name] = mean(terms, earned[inside, 0])
        shares[name] = mean(terms_of(np.ones((50, 1)), earned, subject), inside.astype(float))
    both = weighted_mean(parts, shares)
    assert both.value == pytest.approx(one.value) and both.interval() == pytest.approx(one.interval())
    assert both.minus(one).influence == pytest.approx(np.zeros(50), abs=1e-12)
    assert one.minus(one).interval() is None


def test_the_reward_model_tells_good_items_and_positions() -> None:
    rng = np.random.default_rng(4)
    item, position = rng.integers(6, size=9000), rng.integers(3, size=9000)
    taste, bias = np.array([0.5, 1, 1, 1, 1, 1.5]), np.array([0.4, 0.2, 0.1])
    reward = (rng.random(9000) < taste[item] * bias[position]).astype(float)
    model = fit(item, position, np.full(9000, -1.5), reward, 6, 3)
    r = model.predict(np.arange(6), np.full(6, -1.5), 3)
    assert r == pytest.approx(taste[:, None] * bias, abs=0.07)
    assert model.predict(np.array([-1]), np.array([-1.5]), 3)[0] == pytest.approx(bias, abs=0.05)
    assert bins(np.array([-20.0, -0.1])).tolist() == [0, 7]


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    world = World(Setting("short", 2, Law(1.0), Law(0.7), subjects=400, lists_max=4))
    tallies: dict[str, Tally] = {}
    for seed in range(40):
        replicate(world, seed, tallies)
    assert set(tallies) == set(ESTIMATORS)
    for name, tally in tallies.items():
        # Of 40 intervals of 95 %, fewer than 30 hold the truth once in a hundred thousand times.
        assert tally.judged == 40 and tally.covered >= 30, name
