"""Simulated users look from the top, tire, change half-way, and do the same again with the same seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from loadtests.simulator.past import dataset_of, earlier_clicks
from loadtests.simulator.people import KEPT, TIRED, People, examination
from loadtests.simulator.world import AFTER, BEFORE, Shape, World
from model.data.dataset import sequences

SMALL = Shape(users=30, items=60, categories=6, groups=3)
TOP = np.arange(10)


def test_clicks_come_as_often_as_position_taste_and_fatigue_say() -> None:
    world = World(Shape(users=1500, items=20, base=0.0))
    people = People(world)
    clicked, chance = np.zeros(10), np.zeros(10)
    for user in range(world.shape.users):
        visit = people.visit(user, TOP, BEFORE)
        expected = examination(10) * world.attraction(user, TOP, BEFORE)
        assert visit.chance == pytest.approx(expected)
        clicked += visit.clicked
        chance += expected
    # Four standard errors of a sum of independent clicks.
    assert np.abs(clicked - chance).max() < 4.0 * np.sqrt(chance.max())
    assert examination(3).tolist() == pytest.approx([1.0, 1.0 / np.log2(3.0), 0.5])


def test_what_was_shown_lately_attracts_less_and_recovers() -> None:
    people = People(World(SMALL))
    fresh = people.chance(0, TOP, BEFORE)
    people.visit(0, TOP, BEFORE)
    assert people.chance(0, TOP, BEFORE) == pytest.approx(fresh * TIRED)
    people.visit(0, TOP + 10, BEFORE)
    assert people.chance(0, TOP, BEFORE) == pytest.approx(fresh * TIRED**KEPT)
    assert people.chance(1, TOP, BEFORE) == pytest.approx(
        examination(10) * people.world.attraction(1, TOP, BEFORE)
    )  # nobody else is tired of it


def test_the_drift_moves_some_users_and_some_items_and_leaves_the_others() -> None:
    world = World(Shape(users=400, items=300, moved=0.25, fashion=0.5))
    items = np.arange(300)
    odds = np.stack([[_odds(world.attraction(user, items, phase)) for user in range(400)] for phase in (BEFORE, AFTER)])
    change = odds[1] - odds[0]
    # Users who stay see the items change alike; so the median over users is what fashion did.
    fashion = np.median(change, axis=0)
    assert 0.4 < np.mean(np.abs(fashion) > 1e-9) < 0.6
    moved = np.abs(change - fashion).max(axis=1) > 1e-9
    assert 0.15 < moved.mean() < 0.35


def test_equal_seeds_make_equal_pasts_and_others_do_not() -> None:
    pasts = [
        list(earlier_clicks(People(World(Shape(30, 60, 6, 3, seed=seed))), 4, 10, 1_000_000)) for seed in (0, 0, 1)
    ]
    assert pasts[0] == pasts[1] != pasts[2]
    assert max(click.time_ms for click in pasts[0]) < 1_000_000


def test_the_past_is_a_data_set_of_the_whole_catalogue() -> None:
    world = World(SMALL)
    clicks = list(earlier_clicks(People(world), 6, 10, 1_700_000_000_000))
    log = sequences(dataset_of(world, clicks))
    assert set(log.item_ids) == set(world.item_ids)
    found = {
        (log.user_ids[user], log.item_ids[item], time)
        for user in range(log.n_users)
        for item, time in zip(log.item[log.user(user)], log.time_ms[log.user(user)], strict=True)
    }
    assert found == {(world.user_ids[one.user], world.item_ids[one.item], one.time_ms) for one in clicks}


def test_users_remember_over_a_restart_and_another_world_is_refused(tmp_path: Path) -> None:
    people, again = People(World(SMALL)), People(World(SMALL))
    people.visit(3, TOP, BEFORE)
    people.save(tmp_path / "people.npz")
    again.load(tmp_path / "people.npz")
    ours, theirs = (one.visit(3, TOP, AFTER) for one in (people, again))
    assert (ours.number, ours.chance.tolist(), ours.clicked.tolist()) == (
        theirs.number,
        theirs.chance.tolist(),
        theirs.clicked.tolist(),
    )
    with pytest.raises(ValueError, match="another size"):
        People(World(Shape(users=5))).load(tmp_path / "people.npz")


def _odds(chance: np.ndarray) -> np.ndarray:
    return np.asarray(np.log(chance / (1.0 - chance)))
