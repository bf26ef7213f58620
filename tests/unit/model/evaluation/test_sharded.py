"""An evaluation by several processes has the figures of one, to the last digit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from model.data.dataset import EVENT_SCHEMA, ITEM_SCHEMA, Dataset
from model.data.items_users import conform
from model.evaluation.evaluate import evaluate
from model.evaluation.sharded import lists_by
from tests.support.scorers import ScorersOf


@pytest.fixture
def source(tmp_path: Path) -> ScorersOf:
    rng = np.random.default_rng(2)
    lengths = rng.integers(3, 15, 150)
    events = pl.DataFrame(
        {
            "user_id": np.repeat([f"u{user}" for user in range(150)], lengths),
            "item_id": [f"i{item}" for item in (60 * rng.random(lengths.sum()) ** 2).astype(int)],
            "event_type": "view",
        }
    )
    items = conform(events.select(pl.col("item_id").unique(maintain_order=True)), ITEM_SCHEMA)
    users = events.select(pl.col("user_id").unique(maintain_order=True))
    Dataset.of("made", conform(events, EVENT_SCHEMA), items, users, has_time=False).save(tmp_path / "data")
    return ScorersOf(tmp_path / "data")


@pytest.mark.fleet
@pytest.mark.timeout(300)
def test_the_figures_are_those_of_one_process_to_the_last_digit(source: ScorersOf) -> None:
    opened, told = source.open(), []
    lists = lists_by(source, opened, "test", 2, lambda *said: told.append(said), batch=40)
    one = evaluate(opened.systems, opened.split, batch=40, samples=200)
    several = evaluate(opened.systems, opened.split, batch=40, samples=200, lists=lists)
    assert several.to_json() == one.to_json()
    assert max(done for name, done, _ in told if name == "gpt4rec") == len(opened.split.test)
