"""Looks by position, from the items that the draw might have put elsewhere: right whatever attracts clicks."""

from __future__ import annotations

import numpy as np
import pytest

from loadtests.shop.slate_world import Shape, World
from model.slate.impressions import Impressions
from model.slate.position_bias import PARTS, position_bias, weighted_clicks


def random_impressions(rng: np.random.Generator, lists: int = 40, k: int = 3) -> Impressions:
    chance = rng.dirichlet(np.ones(k + 2), size=(lists, k))[:, :, :k]
    chance[rng.random(chance.shape) < 0.2] = 0.0
    item = rng.integers(0, 9, (lists, k))
    item[::7, -1] = -1
    return Impressions(
        rng.integers(0, 60, lists), item, rng.normal(size=(lists, k)), (rng.random((lists, k)) < 0.5) & (item >= 0),
        np.zeros((lists, k)), chance,
    )  # fmt: skip


def test_clicks_count_by_their_overlap_weights_as_in_plain_loops() -> None:
    rng = np.random.default_rng(0)
    seen, factor = random_impressions(rng), rng.uniform(0.2, 1.0, (40, 3))
    expected = np.zeros((PARTS, 3, 3))
    for n in range(40):
        for p in range(3):
            for q in range(3):
                here, there = seen.chance[n, p, p], seen.chance[n, p, q]
                if p != q and here > 0 and there > 0 and seen.clicked[n, p]:
                    expected[seen.subject[n] % PARTS, p, q] += there / (here + there) / factor[n, p]
    np.testing.assert_allclose(weighted_clicks(seen, factor), expected)


@pytest.mark.parametrize("seed", [0, 1])
def test_looks_are_found_although_the_better_items_are_at_the_top(seed: int) -> None:
    shape = Shape(k=5, items=60, situations=40, candidates=10, subjects=6000, lists=6)
    world = World(shape, seed, plain=True)
    seen = world.lists()
    found = position_bias(seen)
    assert found.examination[0] == 1.0
    np.testing.assert_allclose(found.examination, world.examination, rtol=0.08)
    assert (np.abs(np.log(found.examination / world.examination))[1:] < 5 * found.error[1:]).all()
    by_position = seen.clicked.mean(axis=0)
    assert by_position[-1] / by_position[0] < 0.8 * world.examination[-1]


def test_without_clicks_nothing_is_known() -> None:
    seen = random_impressions(np.random.default_rng(1))
    found = position_bias(Impressions(seen.subject, seen.item, seen.score, seen.item > 99, seen.dwell, seen.chance))
    assert (found.clicks == 0).all() and (found.examination > 0).all()
