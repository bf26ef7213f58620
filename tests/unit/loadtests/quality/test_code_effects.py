"""What a control code does to lists, on lists whose answer is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from loadtests.quality.code_effects import LIMITS, Asked, effects, spread
from loadtests.quality.control_codes import asked_of, codes_of
from model.training.config import TrainConfig
from model.training.run_folder import Run
from model.training.trainer import Trainer
from service.artifact.array_types import IntArray
from tests.support.data_builders import tiny_dataset

USERS, ITEMS = 30, 20


def lists(first: int) -> IntArray:
    """Ten items in a row for everybody."""
    return np.tile(np.arange(first, first + 10), (USERS, 1)).astype(np.int64)


def asked(target_code: IntArray, any_code: IntArray) -> Asked:
    """Items 10 to 19 have the code and are the tail; the target of everybody is item 12."""
    has = np.arange(ITEMS)[None] >= 10
    return Asked(
        without=lists(0),
        target_code=target_code,
        any_code=any_code,
        has=has,
        drawn=np.zeros(USERS, np.int64),
        targets=np.full(USERS, 12),
        coded=np.ones(USERS, bool),
        lengths=np.arange(USERS),
        groups=np.where(has[0], 2, 0),
    )


def test_a_code_that_is_obeyed_fills_lists_with_it_and_finds_the_target() -> None:
    found = effects(asked(lists(10), lists(10)))
    assert found["share of the list that has the code, without asking"] == 0.0
    assert found["share of the list that has the code, gained, lower end"] == 1.0
    assert found["recall@10 gained with the target's code, lower end"] == 1.0
    assert found["share of tail items, lost"] == -1.0
    assert found["exposure moved, Jensen-Shannon"] == pytest.approx(1.0)
    assert found.keys() >= LIMITS.keys()


def test_a_code_that_is_ignored_changes_nothing() -> None:
    found = effects(asked(lists(0), lists(0)))
    assert [found[name] for name in LIMITS] == [0.0] * len(LIMITS)


def test_a_code_that_serves_only_long_histories_sets_groups_apart() -> None:
    """The last third of the users gets the code, and all it brings."""
    partly = lists(0)
    partly[20:] = lists(10)[20:]
    found = effects(asked(partly, lists(10)))
    assert found["recall@10, groups of history length further apart"] == pytest.approx(1.0, abs=0.11)
    assert spread(np.array([0.0, 1.0, 0.5]), np.array([0, 0, 1])) == 0.0


def test_every_control_code_of_a_data_set_is_asked_for(tmp_path: Path) -> None:
    settings = TrainConfig(size="tiny", max_epochs=1, patience=1, styles="attributes", control_known=0.5, max_length=16)
    trainer = Trainer(tiny_dataset(30, 20), Path("data"), tmp_path, settings)
    trainer.fit()
    model = Run.open(tmp_path).model()
    torch.nn.init.normal_(model.context.modulate.weight)  # an epoch has hardly moved it
    assert trainer.context.controls == ("price_band", "style", "category")
    for slot in trainer.context.controls:
        found = asked_of(trainer, model, slot, seed=0)
        table = codes_of(trainer.conditions, trainer.context, slot)
        assert found.has.shape[1] == len(table) == 20
        assert found.coded.all()
        assert (found.without != found.any_code).any()
        assert np.isfinite(list(effects(found).values())).all()
