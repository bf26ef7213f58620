"""What a configuration leaves open follows from the data, and what it says stays."""

from __future__ import annotations

from dataclasses import replace

import pytest

from model.data.dataset import Sequences, sequences
from model.training.config import TrainConfig
from model.training.defaults import resolve_defaults
from tests.support.data_builders import tiny_dataset


def log(users: int, events: int, items: int) -> Sequences:
    """A log of which only the counts are looked at."""
    some = sequences(tiny_dataset(users=users, min_events=events, max_events=events))
    return replace(some, item_ids=[f"i{i}" for i in range(items)])


@pytest.mark.parametrize(
    ("users", "events", "items", "chosen"),
    [
        (30, 9, 40, {"layers": 1, "dropout": 0.5}),
        (30, 25, 40, {"dropout": 0.5}),
        (30, 25, 10, {}),
        (2, 200, 40, {}),
        (30, 25, 3, {"dropout": 0.2}),
        (60, 10, 3, {"layers": 1, "dropout": 0.2}),
    ],
)
def test_layers_and_dropout_follow_the_histories_and_the_items(
    users: int, events: int, items: int, chosen: dict[str, float]
) -> None:
    assert resolve_defaults(TrainConfig(), log(users, events, items)).network == chosen


def test_what_is_set_by_hand_stays() -> None:
    given = TrainConfig(network={"layers": 3, "dropout": 0.0})
    assert resolve_defaults(given, log(60, 10, 3)) == given
    assert resolve_defaults(TrainConfig(size="tiny"), log(60, 10, 3)) == TrainConfig(size="tiny")
