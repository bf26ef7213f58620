"""The order of the first items: rewards equal plain loops, and the order found is the best one or close to it."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.artifact.scorers.order_weights import OrderWeights
from service.ordering.expected_reward import Slate, click_probabilities, expected_rewards
from service.ordering.ordering import Ordering, best_order
from tests.support.orders import NO_EFFECT, order_weights

SEEDS = st.integers(0, 10_000)


def slate_of(weights: OrderWeights, seed: int, m: int) -> tuple[Slate, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    items, scores = rng.permutation(weights.n_items + 1)[:m], rng.normal(size=m)
    return Slate.of(weights, items, scores), items, scores


def plain_reward(weights: OrderWeights, items: list[int], scores: list[float]) -> float:
    """What a list earns, position by position; an item that is not known has no column and the mean value."""
    there, total, w = 1.0, 0.0, weights.weights
    groups = [int(weights.group[item]) if item < weights.n_items else -1 for item in items]
    for p, (item, score) in enumerate(zip(items, scores, strict=True)):
        known = item < weights.n_items
        odds = w["base"] + w["score"] * (score - weights.scale[0]) / weights.scale[1]
        odds += w["item"] * float(weights.item[item]) if known else 0.0
        for q in range(p):
            if groups[p] >= 0 and groups[p] == groups[q]:
                odds += w["alike"] / (p - q)
        if p and groups[p] >= 0 and groups[p - 1] >= 0:
            odds += w["follows"] * float(weights.follows[groups[p - 1], groups[p]])
        look = float(weights.examination[min(p, len(weights.examination) - 1)])
        click = there * look / (1.0 + math.exp(-odds))
        there -= weights.leave * click
        total += click * (float(weights.value[item]) if known else float(weights.value.mean()))
    return total


@given(SEEDS, st.integers(2, 7))
@settings(max_examples=40, deadline=None)
def test_the_expected_reward_equals_plain_loops(seed: int, m: int) -> None:
    weights = order_weights(8)
    slate, items, scores = slate_of(weights, seed, m)
    order = np.random.default_rng(seed).permutation(m)
    expected = plain_reward(weights, items[order].tolist(), scores[order].tolist())
    assert expected_rewards(weights, slate, order[None])[0] == pytest.approx(expected)
    chance = click_probabilities(weights, slate, order[None])
    assert ((chance > 0) & (chance < 1)).all()


@given(SEEDS)
@settings(max_examples=25, deadline=None)
def test_the_order_found_earns_nearly_what_the_best_one_does(seed: int) -> None:
    weights = order_weights(8)
    slate, _, _ = slate_of(weights, seed, 6)
    every = np.array(list(permutations(range(6))))
    found = expected_rewards(weights, slate, best_order(weights, slate)[None])[0]
    assert found >= 0.9 * expected_rewards(weights, slate, every).max()
    assert found >= expected_rewards(weights, slate, np.arange(6)[None])[0]


@given(SEEDS)
@settings(max_examples=20, deadline=None)
def test_without_anything_above_the_order_is_the_best_one(seed: int) -> None:
    weights = order_weights(8, weights=NO_EFFECT, leave=0.0)
    slate, _, _ = slate_of(weights, seed, 6)
    earned = slate.value / (1.0 + np.exp(-slate.base))
    assert (np.diff(earned[best_order(weights, slate)]) <= 1e-9).all()


@given(SEEDS)
@settings(max_examples=20, deadline=None)
def test_a_policy_lists_what_it_prefers_position_by_position(seed: int) -> None:
    weights = order_weights(8, method="policy")
    slate, _, _ = slate_of(weights, seed, 5)
    order = best_order(weights, slate).tolist()
    assert sorted(order) == list(range(5))
    for p in range(5):
        preferences = {}
        for other in order[p:]:
            value = float(slate.base[other])
            value += sum(
                weights.weights["alike"] * (slate.group[other] == slate.group[order[q]]) / (p - q) for q in range(p)
            )
            value += weights.weights["follows"] * slate.follows[order[p - 1], other] if p else 0.0
            preferences[other] = value
        assert preferences[order[p]] == pytest.approx(max(preferences.values()))


def test_items_behind_the_first_keep_their_places() -> None:
    ordering = Ordering.of(order_weights(30), 4)
    assert ordering is not None
    scores = np.linspace(2, -2, 10).astype(np.float32)
    changed = False
    for seed in range(5):
        items = np.random.default_rng(seed).permutation(30)[:10]
        places = ordering.order(items, scores)
        assert sorted(places[:4].tolist()) == [0, 1, 2, 3] and places[4:].tolist() == list(range(4, 10))
        changed |= places.tolist() != list(range(10))
    assert changed
    assert ordering.order(items[:1], scores[:1]).tolist() == [0]
    assert len(ordering.order(items[:0], scores[:0])) == 0


def test_a_new_item_is_ordered_like_the_one_it_is_most_like() -> None:
    ordering = Ordering.of(order_weights(6), 6)
    assert ordering is not None
    items, scores = np.array([0, 1, 2, 8]), np.zeros(4, np.float32)
    stood_in = ordering.over({8: 5})
    np.testing.assert_array_equal(stood_in.order(items, scores), ordering.order(np.array([0, 1, 2, 5]), scores))


def test_there_is_no_ordering_without_an_order_model_or_where_none_is_wanted() -> None:
    assert Ordering.of(None, 10) is None
    assert Ordering.of(order_weights(), 0) is None and Ordering.of(order_weights(), 1) is None


def test_orders_are_nearly_the_best_on_the_mean() -> None:
    weights, every, shares = order_weights(20), np.array(list(permutations(range(6)))), []
    for seed in range(40):
        slate, _, _ = slate_of(weights, seed, 6)
        found = expected_rewards(weights, slate, best_order(weights, slate)[None])[0]
        shares.append(found / expected_rewards(weights, slate, every).max())
    assert np.mean(shares) > 0.99
