"""Clicks given looks, and the order model that is learned of them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from loadtests.shop.slate_world import ABOVE, LEAVE, Shape, World
from model.slate.click_model import log_likelihood
from model.slate.impressions import alike_above, follows_above
from model.slate.learning import Items, OrderError, learn, values_of
from service.artifact.items.catalogue import Catalogue
from service.artifact.items.catalogue_item import CatalogueItem
from service.ordering.expected_reward import nearness

SMALL = Shape(k=4, items=40, categories=4, situations=25, candidates=8, subjects=1500, lists=4)


def test_the_likelihood_equals_plain_loops() -> None:
    rng = np.random.default_rng(0)
    odds, e, leave = rng.normal(size=(30, 4)), np.array([1.0, 0.6, 0.5, 0.4]), 0.3
    shown = np.ones((30, 4))
    shown[::5, 3] = 0.0
    clicked = (rng.random((30, 4)) < 0.4) * shown
    total = 0.0
    for n in range(30):
        there = 1.0
        for p in range(4):
            if not shown[n, p]:
                continue
            look = e[p] / (1.0 + math.exp(-odds[n, p]))
            total += math.log(there * look if clicked[n, p] else 1.0 - there * look)
            there = 1.0 - leave if clicked[n, p] else there * (1.0 - look) / (1.0 - there * look)
    tensor = torch.from_numpy
    found = log_likelihood(tensor(odds), tensor(e), torch.tensor(leave), tensor(clicked), tensor(shown))
    assert float(found) == pytest.approx(total)


def test_what_stands_above_equals_plain_loops() -> None:
    rng = np.random.default_rng(1)
    group, follows = rng.integers(-1, 3, (20, 5)), rng.normal(size=(3, 3))
    alike, below = alike_above(group, nearness(5)), follows_above(group, follows)
    for n in range(20):
        for p in range(5):
            own = group[n, p]
            expected = sum(1.0 / (p - q) for q in range(p) if own >= 0 and group[n, q] == own)
            assert alike[n, p] == pytest.approx(expected)
            prior = follows[group[n, p - 1], own] if p and own >= 0 and group[n, p - 1] >= 0 else 0.0
            assert below[n, p] == pytest.approx(prior)
    assert not follows_above(group, np.zeros((0, 0))).any()


def test_what_a_click_depends_on_is_found() -> None:
    world = World(SMALL, 1)
    seen = world.lists()
    found = learn(seen, world.items)
    weights = found.weights
    np.testing.assert_allclose(weights.examination, world.examination, rtol=0.15)
    assert weights.leave == pytest.approx(LEAVE, abs=0.1)
    assert weights.weights["alike"] == pytest.approx(ABOVE, abs=0.2)
    assert weights.weights["score"] / weights.scale[1] == pytest.approx(1.0, abs=0.25)
    assert weights.weights["follows"] == 0.0 and (weights.value == 1.0).all()
    appeal = np.zeros(SMALL.items)
    np.add.at(appeal, world.item, world.odds - world.score)  # what the score does not say, beside its errors
    shown = np.bincount(world.item.ravel(), minlength=SMALL.items)
    assert np.corrcoef(weights.item[shown > 0], (appeal / np.maximum(shown, 1))[shown > 0])[0, 1] > 0.75


def test_a_log_that_says_nothing_of_looks_is_refused() -> None:
    seen = World(replace(SMALL, subjects=30), 0).lists()
    always_there = np.zeros(seen.chance.shape) + np.eye(SMALL.k)
    with pytest.raises(OrderError, match="might have been elsewhere"):
        learn(replace(seen, chance=always_there), World(SMALL, 0).items)


def test_a_click_is_worth_its_dwell() -> None:
    world = World(replace(SMALL, subjects=600), 2)
    seen = world.lists()
    dwell, mean = values_of(seen, SMALL.items, "dwell")
    both, _ = values_of(seen, SMALL.items, "both")
    np.testing.assert_allclose(both, dwell + 1.0, rtol=1e-6)
    assert mean == pytest.approx(seen.dwell[seen.clicked].mean())
    assert np.corrcoef(dwell, world.dwell)[0, 1] > 0.6
    with pytest.raises(OrderError, match="dwell"):
        values_of(replace(seen, dwell=np.zeros(seen.dwell.shape)), SMALL.items, "dwell")


def test_items_are_grouped_by_their_first_category() -> None:
    categories = [("b", "x"), ("a",), (), ("b",)]
    items = Items.of(Catalogue.of([CatalogueItem(str(n), category=one) for n, one in enumerate(categories)]))
    assert items.names == ("b", "a")
    assert items.group.tolist() == [0, 1, -1, 0]
