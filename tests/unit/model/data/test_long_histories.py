"""What a robot's history of any length may cost: the newest events of a user are read, and that is said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from model.data.dataset import Sequences
from model.data.long_histories import ITEM_CF_EVENTS, newest, note_on_long
from model.evaluation.baselines import fit_neighbours


def log(lengths: list[int], n_items: int) -> Sequences:
    """Users with so many events; the items are numbered through."""
    n = sum(lengths)
    return Sequences(
        user_ids=[f"u{user}" for user in range(len(lengths))],
        item_ids=[f"i{item}" for item in range(n_items)],
        offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum(np.array(lengths, np.int64))]),
        item=np.arange(n, dtype=np.int64) % n_items,
        type=np.arange(n, dtype=np.int64) % 3,
        time_ms=np.arange(n, dtype=np.int64) * 1000,
        has_time=True,
    )


@given(st.lists(st.integers(0, 9), max_size=6), st.integers(1, 9), st.booleans())
@settings(deadline=None, max_examples=50)
def test_the_newest_events_of_each_user_are_kept(lengths: list[int], limit: int, scenes: bool) -> None:
    whole = log(lengths, 7)
    if scenes:
        whole = replace(whole, scene=whole.item + 1)
    kept = newest(whole, limit)
    for user in range(len(lengths)):
        rows, all_rows = kept.user(user), whole.user(user)
        for name in ("item", "type", "time_ms", *(("scene",) if scenes else ())):
            assert getattr(kept, name)[rows].tolist() == getattr(whole, name)[all_rows][-limit:].tolist()
    assert (kept is whole) == (max(lengths, default=0) <= limit)


def test_item_cf_compares_no_more_of_a_robots_items_than_a_stated_number() -> None:
    n = ITEM_CF_EVENTS + 2000
    _, similarity = fit_neighbours(log([n, 3], n), "cosine", 3)
    compared = np.flatnonzero(similarity[:, 0] > 0)
    # The second user has items 0, 1 and 2 too.
    assert compared.tolist() == [0, 1, 2, *range(n - ITEM_CF_EVENTS, n)]


def test_a_cut_history_is_said_without_naming_the_user() -> None:
    note = note_on_long(log([3, 12, 15], 7), 10, "item-CF counts")
    assert note is not None
    assert note.startswith("2 users have more than 10 events, the longest history has 15: item-CF counts the newest 10")
    assert "u1" not in note and "u2" not in note
    assert note_on_long(log([3, 10], 7), 10, "item-CF counts") is None
