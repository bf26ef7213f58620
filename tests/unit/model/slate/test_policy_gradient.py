"""The policy gradient: its surrogate equals plain loops, it stays near the log, and prefers what earned more."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from loadtests.shop.slate_world import Shape, World
from model.online.marginals import Law, conditionals
from model.slate.learning import Items, Learned, learn
from model.slate.logged_orders import in_this_order
from model.slate.policy_gradient import COLUMNS, Decisions, decisions_of, improve, surrogate
from service.artifact.array_types import FloatArray

TINY = Shape(k=3, items=30, categories=3, situations=15, candidates=6, subjects=250, lists=2)


@pytest.fixture(scope="module")
def world() -> World:
    return World(TINY, 0)


@pytest.fixture(scope="module")
def learned(world: World) -> Learned:
    return learn(world.lists(), world.items)


def with_prior(items: Items) -> Items:
    follows: FloatArray = np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32)
    return replace(items, follows=follows)


def test_decisions_have_the_law_of_the_log_and_the_features_of_the_order(world: World, learned: Learned) -> None:
    items, lists = with_prior(world.items), world.logged().lists[:40]
    at = decisions_of(lists, learned, items)
    weights, group = learned.weights, items.group
    for n, one in enumerate(lists):
        law = at.log_weight[n] - np.log(np.exp(at.log_weight[n]).sum(axis=1, keepdims=True))
        expected = conditionals(one.scores, Law(), one.shown)
        np.testing.assert_allclose(law[np.arange(3), one.shown], expected, atol=1e-6)
        for p in range(3):
            assert at.earned[n, p] == one.reward[p:3].sum()
            above = [int(one.candidates[place]) for place in one.shown[:p]]
            for c, item in enumerate(one.candidates.tolist()):
                score = (float(one.scores[c]) - weights.scale[0]) / weights.scale[1]
                alike = sum((group[other] == group[item]) / (p - q) for q, other in enumerate(above))
                follows = float(items.follows[group[above[-1]], group[item]]) if above else 0.0
                known = [score, float(weights.item[item]), alike, follows]
                np.testing.assert_allclose(at.x[n, p, c], known, atol=1e-5)


def test_the_surrogate_equals_plain_loops(world: World, learned: Learned) -> None:
    at = decisions_of(world.logged().lists[:30], learned, with_prior(world.items))
    theta = np.array([0.6, -0.9, 0.5, 0.4])
    gain, apart = surrogate(at, torch.from_numpy(theta), 0.2)
    advantage, total, far = at.advantage, 0.0, 0.0
    for n in range(30):
        for p in range(3):
            w = at.log_weight[n, p]
            logged = np.exp(w) / np.exp(w).sum()
            now = np.exp(w + at.x[n, p] @ theta) / np.exp(w + at.x[n, p] @ theta).sum()
            ratio, a = now[at.chosen[n, p]] / logged[at.chosen[n, p]], advantage[n, p]
            total += min(ratio * a, min(max(ratio, 0.8), 1.2) * a)
            far += sum(q * math.log(q / r) for q, r in zip(logged, now, strict=True) if q > 0)
    assert float(gain) == pytest.approx(total / 90)
    assert float(apart) == pytest.approx(far / 90)


def test_it_prefers_what_earned_more_within_its_trust_region() -> None:
    rng, lists = np.random.default_rng(0), 120
    x = np.zeros((lists, 1, 3, len(COLUMNS)))
    x[:, 0, 2, 1] = 1.0  # the third candidate has the feature `item`, and is clicked
    chosen = rng.integers(0, 3, (lists, 1))
    at = Decisions(np.zeros((lists, 1, 3)), x, chosen, (chosen == 2).astype(float), np.ones((lists, 1), bool))
    near, far = improve(at, trust=0.001), improve(at, trust=0.1)
    assert 0 < near[1] < far[1] and not near[[0, 2, 3]].any()
    for theta, trust in ((near, 0.001), (far, 0.1)):
        assert float(surrogate(at, torch.from_numpy(theta))[1]) <= trust
    assert improve(at, trust=-1.0).tolist() == [0.0] * 4


def test_scores_in_an_order_put_these_candidates_first() -> None:
    scores = np.array([0.5, 2.0, 2.0, 1.0, -1.0])
    found = in_this_order(scores, np.array([3, 2, 1]))
    assert np.argsort(-found, kind="stable").tolist() == [3, 2, 1, 0, 4]
    np.testing.assert_allclose(np.sort(found), np.sort(scores), atol=1e-8)
