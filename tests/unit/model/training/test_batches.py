"""Training batches: every event is a target once an epoch, seen with what the backbone would see of the past."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.data.dataset import NO_SCENE, Sequences
from model.training.batches import NO_TARGET, Batch, BatchPlan, Chunks, collate, cut
from service.artifact.features import GAP_UNKNOWN, START_TYPE

START = 10_000


def log_of(lengths: list[int], seed: int = 0) -> Sequences:
    """Every event has its own item number, so that an event can be told in a batch."""
    rng = np.random.default_rng(seed)
    n = sum(lengths)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    time_ms = 1_700_000_000_000 + np.cumsum(rng.integers(0, 10**7, n)).astype(np.int64)
    users = [f"u{u}" for u in range(len(lengths))]
    return Sequences(users, [f"i{i}" for i in range(n)], offsets, np.arange(n), rng.integers(0, 6, n), time_ms)


def whole_epoch(chunks: Chunks, max_tokens: int = 64, epoch: int = 0, seed: int = 0) -> list[Batch]:
    return list(BatchPlan(chunks, max_tokens, seed).batches(epoch, START))


logs = st.lists(st.integers(0, 40), min_size=1, max_size=12).filter(lambda lengths: sum(lengths) > 0)
cuts = st.tuples(st.integers(1, 6), st.integers(1, 12)).map(lambda c: (c[0] + c[1], c[0]))  # length > context


@given(logs, cuts, st.integers(1, 200), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_every_event_is_a_target_exactly_once_an_epoch(
    lengths: list[int], cut_at: tuple[int, int], max_tokens: int, epoch: int
) -> None:
    log = log_of(lengths)
    targets: Counter[int] = Counter()
    for batch in whole_epoch(cut(log, *cut_at), max_tokens, epoch):
        targets.update(batch.target[batch.target != NO_TARGET].tolist())
    assert targets == Counter(range(log.n_events))


@given(logs, cuts)
@settings(max_examples=30, deadline=None)
def test_inputs_are_the_events_before_the_target_in_their_order(lengths: list[int], cut_at: tuple[int, int]) -> None:
    log = log_of(lengths)
    owner = np.repeat(np.arange(log.n_users), log.lengths)
    for batch in whole_epoch(cut(log, *cut_at)):
        for b, user in enumerate(batch.user.tolist()):
            rows = (batch.target[b] != NO_TARGET).nonzero()[:, 0].tolist()
            assert rows == list(range(rows[0], rows[-1] + 1)), "context comes first, padding last"
            for t in rows:
                target = int(batch.target[b, t])
                before, kind = int(batch.item[b, t]), int(batch.type[b, t])
                assert owner[target] == user
                if target == log.offsets[user]:
                    assert (before, kind) == (START, START_TYPE)
                    assert int(batch.gap_ms[b, t]) == GAP_UNKNOWN
                    assert batch.time_ms[b, t] == log.time_ms[target]
                else:
                    assert (before, kind) == (target - 1, log.type[target - 1])
                    assert int(batch.time_ms[b, t]) == log.time_ms[target - 1]
                    assert int(batch.gap_ms[b, t]) == log.time_ms[target] - log.time_ms[target - 1]


@given(logs, cuts)
@settings(max_examples=30, deadline=None)
def test_a_cut_keeps_its_context_and_loses_nothing_there(lengths: list[int], cut_at: tuple[int, int]) -> None:
    """Before the first target of a later chunk stand `context` events, or all there are."""
    max_length, context = cut_at
    log = log_of(lengths)
    for batch in whole_epoch(cut(log, max_length, context)):
        assert batch.item.shape[1] <= max_length
        for b, user in enumerate(batch.user.tolist()):
            first = int((batch.target[b] != NO_TARGET).nonzero()[0, 0])
            target = int(batch.target[b, first])
            past = target - int(log.offsets[user])
            begins = int(batch.item[b, 0]) == START
            seen = first + 1 - begins
            assert seen == min(context, past)
            expected = list(range(target - seen, target))
            assert batch.item[b, first + 1 - seen : first + 1].tolist() == expected
            assert begins == (seen == past)


@given(logs, cuts)
@settings(max_examples=30, deadline=None)
def test_the_scene_of_a_position_is_that_of_its_target(lengths: list[int], cut_at: tuple[int, int]) -> None:
    log = log_of(lengths)
    scene = log.item % 4 - 1
    for batch in whole_epoch(cut(replace(log, scene=scene, scenes=("a", "b", "c")), *cut_at)):
        asked = batch.target != NO_TARGET
        assert torch.equal(batch.scene[asked], torch.from_numpy(scene)[batch.target[asked]])
    assert all((batch.scene == NO_SCENE).all() for batch in whole_epoch(cut(log, *cut_at)))


@given(st.integers(1, 30), cuts)
@settings(max_examples=30, deadline=None)
def test_a_history_is_cut_only_where_it_does_not_fit(length: int, cut_at: tuple[int, int]) -> None:
    """Each chunk after the first holds `max_length - context` events more."""
    max_length, context = cut_at
    beyond = max(0, length - max_length)
    assert len(cut(log_of([length]), *cut_at)) == 1 + -(-beyond // (max_length - context))


@given(logs, st.integers(1, 300), st.integers(0, 3))
@settings(max_examples=30, deadline=None)
def test_a_batch_holds_no_more_than_its_tokens_unless_one_chunk_does(
    lengths: list[int], max_tokens: int, epoch: int
) -> None:
    for batch in whole_epoch(cut(log_of(lengths), 20, 8), max_tokens, epoch):
        assert batch.item.numel() <= max_tokens or len(batch.item) == 1


def test_padding_is_small_on_lengths_as_they_occur() -> None:
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(3.2, 1.1, 600), 2, 800).astype(int).tolist()
    plan = BatchPlan(cut(log_of(lengths), 200, 50), 1024, seed=0)
    assert plan.padding_share() < 0.15
    padded = real = 0
    for batch in plan.batches(0, START):
        padded += batch.item.numel()
        for b in range(len(batch.item)):
            real += int((batch.target[b] != NO_TARGET).nonzero()[-1, 0]) + 1
    assert 1 - real / padded == pytest.approx(plan.padding_share(), abs=1e-9)


def test_the_order_is_a_function_of_seed_and_epoch_alone() -> None:
    chunks = cut(log_of([7, 3, 30, 12, 5, 22, 1, 9] * 4), 20, 8)

    def items(seed: int, epoch: int) -> list[list[list[int]]]:
        return [batch.item.tolist() for batch in whole_epoch(chunks, 64, epoch, seed)]

    used = BatchPlan(chunks, 64, 1)
    list(used.batches(0, START))
    assert [b.item.tolist() for b in used.batches(3, START)] == items(1, 3)
    assert items(1, 3) != items(1, 4)
    assert items(1, 3) != items(2, 3)


def test_padding_repeats_the_last_time_and_has_no_target() -> None:
    log = log_of([2, 6])
    chunks = cut(log, 20, 8)
    batch = collate(chunks, np.array([0, 1]), START)
    assert batch.target[0].tolist() == [0, 1, NO_TARGET, NO_TARGET, NO_TARGET, NO_TARGET]
    assert torch.equal(batch.time_ms[0, 2:], batch.time_ms[0, 1].expand(4))


def test_a_context_that_leaves_no_room_is_refused() -> None:
    with pytest.raises(ValueError, match=r"max_length \(8\) must exceed the context"):
        cut(log_of([5]), 8, 8)
