"""The questions of the forgetting table are in nobody's data, and its rows are shares of the whole training."""

from __future__ import annotations

import numpy as np
import polars as pl

from loadtests.loop.forgetting import JUDGED, WHOLE, Outcome, summary
from loadtests.loop.forgetting_data import LEAST_HISTORY, parts_of, questions_of
from model.data.dataset import sequences
from model.training.config import TrainConfig
from tests.support.data_builders import tiny_dataset


def test_old_questions_are_in_no_data_and_new_ones_come_after_the_training() -> None:
    whole = tiny_dataset(users=60)
    parts = parts_of(whole, 0.3, seed=0)
    assert 5 < len(parts.asked) == whole.events.height - parts.all.events.height
    assert parts.old.events["timestamp"].max() < np.quantile(whole.events["timestamp"].to_numpy(), 0.7)
    assert set(parts.old.events["item_id"]) <= set(parts.old.items["item_id"])
    log = sequences(parts.all)
    config = TrainConfig(split="time", valid_share=0.05, test_share=0.05)
    asked = questions_of(parts, log, config)
    last = whole.events.group_by("user_id").agg(pl.col("item_id").last(), pl.len())
    expected = {user: (item, n) for user, item, n in last.iter_rows()}
    assert len(asked.old) == len(parts.asked)
    for user, end, target in zip(asked.old.users, asked.old.history_end, asked.old.target, strict=True):
        item, n = expected[log.user_ids[user]]
        assert log.item_ids[target] == item and end - log.offsets[user] == n - 1 >= LEAST_HISTORY
    test_from = np.sort(log.time_ms)[int(len(log.time_ms) * 0.95)]
    assert len(asked.new) and all(log.time_ms[asked.new.history_end] >= test_from)
    assert [len(split.valid) for split in asked.splits()] == [len(asked.old), len(asked.new)]


def test_the_table_has_shares_of_the_whole_training() -> None:
    whole = Outcome(np.array([0.5, 0.5]), np.array([0.2, 0.4]), 100.0, 120.0)
    ours = Outcome(np.array([0.5, 0.4]), np.array([0.3, 0.3]), 8.0, 12.0, 6.0, 0.1)
    rows = {row["method"]: row for row in summary([{WHOLE: whole, JUDGED: ours}] * 2)}
    assert rows[WHOLE]["old_of_scratch"] == rows[WHOLE]["time_of_scratch"] == 1.0
    assert (rows[JUDGED]["old_of_scratch"], rows[JUDGED]["new_of_scratch"]) == (0.9, 1.0)
    assert (rows[JUDGED]["time_of_scratch"], rows[JUDGED]["strengths"]) == (0.08, [0.1, 0.1])
    assert (rows[JUDGED]["command_of_scratch"], rows[JUDGED]["choice_of_scratch"]) == (0.1, 0.15)
