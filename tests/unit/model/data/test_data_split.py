from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.data.dataset import Sequences, sequences
from model.data.errors import DataError
from model.data.split import Holdout, Split, choose_validation_users, leave_one_out, time_boundaries, time_split
from tests.support.data_builders import tiny_dataset

N_ITEMS = 7


def _sequences(histories: list[list[tuple[int, int]]], has_time: bool = True) -> Sequences:
    """Users with (item, time) pairs, sorted by time as in a data set."""
    rows = [event for history in histories for event in sorted(history, key=lambda event: event[1])]
    offsets = np.cumsum([0, *map(len, histories)]).astype(np.int64)
    item = np.array([row[0] for row in rows], np.int64)
    time = np.array([row[1] if has_time else 0 for row in rows], np.int64)
    return Sequences(
        [f"u{u}" for u in range(len(histories))],
        [f"i{i}" for i in range(N_ITEMS)],
        offsets,
        item,
        item % 3,
        time,
        has_time,
    )


events = st.tuples(st.integers(0, N_ITEMS - 1), st.integers(1, 100))
logs = st.lists(st.lists(events, min_size=1, max_size=9), min_size=1, max_size=8).map(_sequences)
boundaries = st.tuples(st.integers(1, 99), st.integers(1, 99)).filter(lambda pair: pair[0] < pair[1])


def _questions(split: Split) -> list[tuple[Holdout, int]]:
    return [(holdout, i) for holdout in (split.valid, split.test) for i in range(len(holdout))]


def test_leave_one_out_of_a_known_log() -> None:
    seqs = _sequences([[(1, 1), (2, 2), (3, 3), (4, 4)], [(5, 1), (6, 2)], [(0, 1), (1, 2), (2, 3)]])
    split = leave_one_out(seqs)
    assert split.valid.users.tolist() == split.test.users.tolist() == [0, 2]
    assert split.valid.target.tolist() == [3, 1]
    assert split.test.target.tolist() == [4, 2]
    assert seqs.item[split.history(split.test, 0)].tolist() == [1, 2, 3]
    assert seqs.item[split.history(split.valid, 1)].tolist() == [0]
    assert split.train.item.tolist() == [1, 2, 5, 6, 0]
    assert split.train.offsets.tolist() == [0, 2, 4, 5]


def test_only_the_users_asked_for_validation_keep_their_event_before_the_last_out_of_training() -> None:
    seqs = sequences(tiny_dataset(users=200))
    whole, part = leave_one_out(seqs), leave_one_out(seqs, 40)
    assert len(part.valid) == 40
    assert np.array_equal(part.test.target, whole.test.target)
    asked = np.isin(whole.valid.users, part.valid.users)
    assert np.array_equal(part.valid.target, whole.valid.target[asked])
    assert np.array_equal(part.valid.history_end, whole.valid.history_end[asked])
    more = np.zeros(seqs.n_users, np.int64)
    more[whole.valid.users[~asked]] = 1
    assert np.array_equal(part.train.lengths, whole.train.lengths + more)
    assert np.array_equal(leave_one_out(seqs, 40).valid.users, part.valid.users), "drawn once and for all"
    assert len(leave_one_out(seqs, 10**6).valid) == len(whole.valid)


@pytest.mark.parametrize(("users", "asked"), [(10, 1000), (9_000, 1000), (22_363, 2236), (10**6, 5000)])
def test_a_tenth_of_the_users_is_asked_within_bounds(users: int, asked: int) -> None:
    assert choose_validation_users(users) == asked


def test_time_split_of_a_known_log() -> None:
    seqs = _sequences([[(1, 1), (2, 10), (3, 20), (4, 30)], [(5, 1), (6, 20)], [(0, 20), (1, 21)], [(2, 1)]])
    split = time_split(seqs, 10, 20)
    assert split.train.item.tolist() == [1, 5, 2]
    assert split.train.offsets.tolist() == [0, 1, 2, 2, 3]
    assert split.valid.users.tolist() == [0]
    assert split.valid.target.tolist() == [2]
    assert split.test.users.tolist() == [0, 1]
    assert split.test.target.tolist() == [3, 6]
    assert seqs.item[split.history(split.test, 0)].tolist() == [1, 2]


def test_time_split_may_ask_about_users_without_a_history() -> None:
    seqs = _sequences([[(1, 1), (2, 20)], [(0, 20), (1, 21)]])
    assert time_split(seqs, 10, 20, min_history=0).test.users.tolist() == [0, 1]


@settings(deadline=None)
@given(logs)
def test_leave_one_out_histories_end_right_before_their_targets(seqs: Sequences) -> None:
    split = leave_one_out(seqs)
    for holdout, i in _questions(split):
        user, end = int(holdout.users[i]), int(holdout.history_end[i])
        assert split.history(holdout, i).start < end < seqs.offsets[user + 1]
        assert holdout.target[i] == seqs.item[end]
    assert split.valid.history_end.tolist() == (split.test.history_end - 1).tolist()


@settings(deadline=None)
@given(logs)
def test_leave_one_out_trains_on_everything_but_the_held_out_events(seqs: Sequences) -> None:
    split = leave_one_out(seqs)
    assert split.train.n_events + len(split.valid) + len(split.test) == seqs.n_events
    for u in range(seqs.n_users):
        whole, kept = seqs.item[seqs.user(u)], split.train.item[split.train.user(u)]
        assert kept.tolist() == whole[: len(whole) - (2 if len(whole) >= 3 else 0)].tolist()


@settings(deadline=None)
@given(logs, boundaries)
def test_time_split_trains_on_nothing_at_or_after_the_boundary(seqs: Sequences, bounds: tuple[int, int]) -> None:
    split = time_split(seqs, *bounds)
    assert (split.train.time_ms < bounds[0]).all()
    assert split.train.n_events == int((seqs.time_ms < bounds[0]).sum())
    assert split.train.user_ids == seqs.user_ids
    assert split.train.item_ids == seqs.item_ids


@settings(deadline=None)
@given(logs, boundaries)
def test_scenes_stay_with_their_events_in_the_training_part(seqs: Sequences, bounds: tuple[int, int]) -> None:
    seqs = replace(seqs, scene=seqs.item * 3, scenes=tuple(f"s{n}" for n in range(3 * N_ITEMS)))
    for split in (leave_one_out(seqs), time_split(seqs, *bounds)):
        assert split.train.scene is not None
        assert split.train.scene.tolist() == (split.train.item * 3).tolist()


@settings(deadline=None)
@given(logs, boundaries)
def test_time_split_histories_lie_strictly_before_their_boundary(seqs: Sequences, bounds: tuple[int, int]) -> None:
    split = time_split(seqs, *bounds)
    for holdout, start in ((split.valid, bounds[0]), (split.test, bounds[1])):
        for i in range(len(holdout)):
            end = int(holdout.history_end[i])
            assert (seqs.time_ms[split.history(holdout, i)] < start).all()
            assert seqs.time_ms[end] >= start
            assert holdout.target[i] == seqs.item[end]
    assert (seqs.time_ms[split.valid.history_end] < bounds[1]).all()


def _seen(split: Split) -> list[list[int]]:
    """All that a model may be fitted on or be shown: the training part and every history, with its times."""
    train = split.train
    parts = [train.offsets, train.item, train.type, train.time_ms]
    for holdout, i in _questions(split):
        rows = split.history(holdout, i)
        parts += [getattr(split.sequences, name)[rows] for name in ("item", "type", "time_ms")]
    return [part.tolist() for part in parts]


@settings(deadline=None)
@given(logs, st.integers(1, 10**6))
def test_no_leakage_what_happens_in_the_test_event_changes_nothing_a_model_sees(seqs: Sequences, late: int) -> None:
    split = leave_one_out(seqs)
    item, kind, time = seqs.item.copy(), seqs.type.copy(), seqs.time_ms.copy()
    rows = split.test.history_end
    item[rows], kind[rows], time[rows] = (item[rows] + 1) % N_ITEMS, 5, time[rows] + late
    other = leave_one_out(replace(seqs, item=item, type=kind, time_ms=time))
    assert _seen(other) == _seen(split)


@settings(deadline=None)
@given(logs, boundaries, st.integers(1, 10**6))
def test_no_leakage_what_happens_after_the_test_boundary_changes_nothing_a_model_sees(
    seqs: Sequences, bounds: tuple[int, int], late: int
) -> None:
    split = time_split(seqs, *bounds)
    after = seqs.time_ms >= bounds[1]
    changed = replace(
        seqs,
        item=np.where(after, (seqs.item + 1) % N_ITEMS, seqs.item),
        type=np.where(after, 5, seqs.type),
        time_ms=np.where(after, seqs.time_ms + late, seqs.time_ms),
    )
    assert _seen(time_split(changed, *bounds)) == _seen(split)


def test_no_holdout_carries_the_time_of_its_target() -> None:
    assert set(Holdout.__dataclass_fields__) == {"users", "history_end", "target"}


def test_a_split_by_time_refuses_a_log_without_times() -> None:
    with pytest.raises(DataError, match="needs times"):
        time_split(_sequences([[(1, 1)]], has_time=False), 1, 2)


def test_a_split_by_time_refuses_boundaries_in_the_wrong_order() -> None:
    with pytest.raises(DataError, match="not before the test part"):
        time_split(_sequences([[(1, 1)]]), 2, 2)


def test_time_boundaries_leave_the_asked_shares_behind_them() -> None:
    seqs = sequences(tiny_dataset(users=100))
    valid_from, test_from = time_boundaries(seqs, 0.2, 0.1)
    assert (seqs.time_ms >= test_from).mean() == pytest.approx(0.1, abs=0.02)
    assert (seqs.time_ms >= valid_from).mean() == pytest.approx(0.3, abs=0.02)
    assert len(time_split(seqs, valid_from, test_from).test) > 0


def test_the_tiny_data_set_can_be_learnt() -> None:
    """The item that followed most often in training is right far more often than chance (1 in 30)."""
    split = leave_one_out(sequences(tiny_dataset(users=200)))
    train = split.train
    follows = np.zeros((train.n_items, train.n_items), np.int64)
    for u in range(train.n_users):
        history = train.item[train.user(u)]
        np.add.at(follows, (history[:-1], history[1:]), 1)
    last = split.sequences.item[split.test.history_end - 1]
    assert (follows[last].argmax(axis=1) == split.test.target).mean() > 0.6
