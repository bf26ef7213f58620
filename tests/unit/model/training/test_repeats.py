"""Whether lists hold the history is read off the log where nobody says it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.data.dataset import sequences
from model.data.split import Split, leave_one_out
from model.errors import ConfigError
from model.training.config import TrainConfig
from model.training.repeats import LEAST_REPEATS, judge_repeats, resolve_repeats
from service.artifact.array_types import IntArray
from tests.support.data_builders import tiny_dataset

USERS, EVENTS, ITEMS = 200, 9, 60


def split_of_items(item: IntArray) -> Split:
    """The split of a log in which user u did `item[u]`."""
    log = sequences(tiny_dataset(len(item), ITEMS, min_events=item.shape[1], max_events=item.shape[1]))
    return leave_one_out(replace(log, item=item.reshape(-1), item_ids=[f"i{i}" for i in range(ITEMS)]))


def distinct(seed: int = 0) -> IntArray:
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(ITEMS)[:EVENTS] for _ in range(USERS)])


def test_people_who_buy_again_are_noticed() -> None:
    item = distinct()
    item[::2, -2] = item[::2, 0]  # half of the validation targets are the first item
    found = judge_repeats(split_of_items(item))
    assert found.kept
    assert found.share == pytest.approx(0.5, abs=0.01)
    assert found.ndcg_at_10_kept > found.ndcg_at_10_excluded


def test_people_who_never_do_keep_their_history_out() -> None:
    found = judge_repeats(split_of_items(distinct()))
    assert not found.kept
    assert found.share == 0.0
    assert found.ndcg_at_10_kept < found.ndcg_at_10_excluded


def test_a_share_below_the_threshold_is_not_enough() -> None:
    item = distinct()
    few = int(USERS * LEAST_REPEATS) - 2
    item[:few, -2] = item[:few, -3]
    assert not judge_repeats(split_of_items(item)).kept


def test_repeats_that_nobody_can_tell_among_very_many_own_items_do_not_count() -> None:
    """A fifth of the targets come back, from anywhere in the history; the other targets are one popular item."""
    rng = np.random.default_rng(1)
    item = np.stack([rng.permutation(np.arange(1, ITEMS))[:55] for _ in range(USERS)])
    item[:, -2:] = 0
    item[::5, -2] = item[::5, 0]
    split = split_of_items(item)
    found = judge_repeats(split)
    assert found.share == pytest.approx(0.2, abs=0.01)
    assert not found.kept


@pytest.mark.parametrize("said", [True, False])
def test_what_is_set_by_hand_stays_and_the_figures_stand_beside_it(said: bool) -> None:
    item = distinct()
    item[:, -2] = item[:, 0]
    config, found = resolve_repeats(TrainConfig(repeats=said), split_of_items(item))
    assert config.repeats is said
    assert (found.kept, found.by_rule, found.share) == (said, False, 1.0)


def test_a_log_without_validation_questions_keeps_the_history_out() -> None:
    split = split_of_items(distinct())
    empty = split.valid.rows(slice(0, 0))
    assert not judge_repeats(replace(split, valid=empty)).kept


def test_the_facts_can_be_written_as_json() -> None:
    item = distinct()
    item[:, -2] = item[:, 0]
    assert json.loads(json.dumps(judge_repeats(split_of_items(item)).to_json()))["kept"] is True


def test_null_means_by_rule_in_files_and_assignments(tmp_path: Path) -> None:
    assert TrainConfig.build(None, ["repeats=true"]).repeats is True
    assert TrainConfig.build(None, ["repeats=null"]).repeats is None
    with pytest.raises(ConfigError, match="repeats must be bool"):
        TrainConfig.build(None, ["repeats=often"])
    TrainConfig(repeats=False).save(tmp_path / "config.json")
    assert TrainConfig.load(tmp_path / "config.json").repeats is False
    TrainConfig().save(tmp_path / "config.json")
    assert TrainConfig.load(tmp_path / "config.json").repeats is None
