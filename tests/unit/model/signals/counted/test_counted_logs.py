"""A log that is counted in parts: the questions, the integers and the tables of one that is counted in memory."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.data.dataset import EVENT_SCHEMA, ITEM_SCHEMA, Dataset
from model.data.errors import DataError
from model.data.items_users import conform
from model.signals.counted.counting import CountSizes, count_data_set
from model.signals.counted.range_counts import SplitRule
from model.signals.counted.user_ranges import ranked
from tests.support.counts import counts_in_memory, read_counts, same_tables

SMALL = CountSizes(range_rows=25, pairs=20)


def data_set(folder: Path, seed: int, users: int = 30, most: int = 12, *, has_time: bool = True) -> Dataset:
    """A log with ties, with items that nobody takes, and with users who have impressions alone."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for user in range(users):
        times = np.sort(rng.integers(0, 40, rng.integers(1, most)))
        kinds = ["impression"] if user % 9 == 4 else ["view", "purchase", "impression"]
        rows += [
            {
                "user_id": f"u{user}",
                "item_id": f"i{int(10 * rng.random() ** 2)}",
                "timestamp": 1_600_000_000_000 + int(ms) if has_time else None,
                "event_type": str(rng.choice(kinds)),
            }
            for ms in times
        ]
    events = conform(pl.DataFrame(rows, infer_schema_length=None), EVENT_SCHEMA)
    items = conform(pl.DataFrame({"item_id": [f"i{n}" for n in range(13)]}), ITEM_SCHEMA)
    ids = events.select(pl.col("user_id").unique(maintain_order=True))
    made = Dataset.of("made", events, items, ids, has_time=has_time)
    made.save(folder)
    return made


@given(st.integers(0, 10**6), st.sampled_from(["cosine", "tfidf", "bm25"]), st.integers(15, 90), st.integers(0, 20))
@settings(deadline=None, max_examples=4)
def test_counts_in_parts_are_those_in_memory(seed: int, kind: Any, rows: int, validated: int) -> None:
    rule = SplitRule(validation_users=validated)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        made = data_set(folder / "data", seed)
        count_data_set(folder / "data", folder / "counts", rule, kind, sizes=CountSizes(rows, 30))
        expected, counted = counts_in_memory(made, rule), read_counts(folder / "counts")
        for name, table in expected.items():
            assert counted[name].equals(table), name
        if not validated or validated >= made.users.height:
            same_tables(folder / "counts", made, kind)


def test_a_split_by_time_is_that_in_memory(tmp_path: Path) -> None:
    rule, made = SplitRule("time", valid_share=0.3, test_share=0.2), data_set(tmp_path / "data", 5)
    count_data_set(tmp_path / "data", tmp_path / "counts", rule, sizes=SMALL)
    expected, counted = counts_in_memory(made, rule), read_counts(tmp_path / "counts")
    assert counted["split"].height > 5
    assert all(counted[name].equals(table) for name, table in expected.items())


def test_a_log_without_times_cannot_be_split_by_time(tmp_path: Path) -> None:
    data_set(tmp_path / "data", 1, has_time=False)
    with pytest.raises(DataError, match="needs times"):
        count_data_set(tmp_path / "data", tmp_path / "counts", SplitRule("time"), sizes=SMALL)


def test_interrupted_counts_go_on_where_they_were(tmp_path: Path) -> None:
    made, done, limit = data_set(tmp_path / "data", 7), [], [0]

    def step(text: str) -> None:
        done.append(text)
        if limit[0] and len(done) > limit[0]:
            raise KeyboardInterrupt

    for limit[0] in (3, 5, 4):
        done.clear()
        with pytest.raises(KeyboardInterrupt):
            count_data_set(tmp_path / "data", tmp_path / "counts", step=step, sizes=SMALL)
    last, limit[0] = done[-1], 0
    done.clear()
    count_data_set(tmp_path / "data", tmp_path / "counts", step=step, sizes=SMALL)
    assert done[1] == last
    expected, counted = counts_in_memory(made, SplitRule()), read_counts(tmp_path / "counts")
    assert all(counted[name].equals(table) for name, table in expected.items())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["counts", "data"]


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    data_set(tmp_path / "data", 1)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(DataError, match="left unchanged"):
        count_data_set(tmp_path / "data", tmp_path / "mine", sizes=SMALL)
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"


@given(st.lists(st.lists(st.integers(-(10**12), 10**12), max_size=9), min_size=1, max_size=4), st.randoms())
@settings(deadline=None, max_examples=30)
def test_a_place_in_the_order_is_found_in_passes(parts: list[list[int]], random: Any) -> None:
    values = [value for part in parts for value in part]
    if not values:
        return
    rank = random.randrange(len(values))
    assert ranked(lambda: iter([np.array(part, np.int64) for part in parts]), [rank]) == [sorted(values)[rank]]
