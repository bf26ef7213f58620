"""Fitting and tuning of the baselines: against dense formulas, on logs small enough to see through."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.data.dataset import Sequences
from model.data.split import leave_one_out
from model.evaluation import baselines
from model.evaluation.baselines import ItemCFConfig, fit_baselines, fit_item_cf, fit_neighbours, item_cf_ranks
from model.evaluation.metrics import NOT_RANKED, ndcg
from model.signals.shared_users import KINDS, Kind
from service.artifact.array_types import IntArray
from service.artifact.scorers.item_cf import ItemCF
from service.artifact.scorers.popularity import Popularity


def log(histories: list[list[int]], n_items: int) -> Sequences:
    flat = np.array([item for history in histories for item in history], np.int64)
    return Sequences(
        user_ids=[f"u{i}" for i in range(len(histories))],
        item_ids=[f"i{i}" for i in range(n_items)],
        offsets=np.cumsum([0, *map(len, histories)]).astype(np.int64),
        item=flat,
        type=np.zeros_like(flat),
        time_ms=np.zeros_like(flat),
        has_time=False,
    )


def random_log(seed: int, n_users: int = 60, n_items: int = 20) -> Sequences:
    """Users walk round a circle of items, so that there is something to find."""
    rng = np.random.default_rng(seed)
    histories = []
    for _ in range(n_users):
        steps = rng.integers(1, 3, rng.integers(3, 12))
        histories.append(((rng.integers(0, n_items) + np.cumsum(steps)) % n_items).tolist())
    return log(histories, n_items)


def test_cosine_neighbours_by_hand() -> None:
    # item 0: users 0, 1, 2; item 1: users 0, 1; item 2: user 2; item 3: nobody. Repeats do not count.
    neighbour, similarity = fit_neighbours(log([[0, 1, 1], [0, 1], [0, 2]], 4), "cosine", 3)
    assert neighbour[0, :2].tolist() == [1, 2]
    assert similarity[0].tolist() == pytest.approx([2 / np.sqrt(6), 1 / np.sqrt(3), 0])
    assert neighbour[2, :1].tolist() == [0]
    assert similarity[2].tolist() == pytest.approx([1 / np.sqrt(3), 0, 0])
    assert similarity[3].tolist() == [0, 0, 0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("neighbours", [1, 5, 100])
def test_every_kind_makes_a_valid_scorer(kind: Kind, neighbours: int) -> None:
    model = fit_item_cf(random_log(1), ItemCFConfig(kind, neighbours, 0.5))
    assert model.n_items == 20
    assert model.neighbour.shape[1] == min(neighbours, 20)
    assert (model.similarity[:, 0] > 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_log_without_events_or_with_one_item_still_fits(kind: Kind) -> None:
    for empty in (log([[], []], 3), log([[0, 0]], 1)):
        model = fit_item_cf(empty, ItemCFConfig(kind, 2, 1.0))
        assert len(model.recommend(np.zeros(1, np.int64), 5)[0]) == 0


@given(st.integers(0, 10**6), st.sampled_from([1.0, 0.7, 0.5]), st.booleans())
@settings(deadline=None, max_examples=30)
def test_fast_ranks_equal_the_lists_the_service_gives(seed: int, decay: float, exclude: bool) -> None:
    split = leave_one_out(random_log(seed, n_users=12))
    model = fit_item_cf(split.train, ItemCFConfig("cosine", 6, decay))
    # eighths: sums are exact in any order, and ties are common
    coarse = (np.ceil(model.similarity * 8) / 8).astype(np.float32)
    model = ItemCF(model.neighbour, coarse, model.decay, horizon=5)
    ranks = item_cf_ranks(model, split.sequences, split.test, exclude)
    for i, rank in enumerate(ranks.tolist()):
        history = split.sequences.item[split.history(split.test, i)]
        items, _ = model.recommend(history, model.n_items, None, history if exclude else NOTHING)
        found = items.tolist()
        target = int(split.test.target[i])
        assert rank == (found.index(target) if target in found else NOT_RANKED)


NOTHING: IntArray = np.zeros(0, np.int64)


def test_tuning_picks_the_best_of_its_trials_on_validation() -> None:
    split = leave_one_out(random_log(2))
    calls: list[tuple[int, int]] = []
    fitted = fit_baselines(split, progress=lambda done, total: calls.append((done, total)))
    best = max(trial.ndcg_at_10 for trial in fitted.trials)
    ranks = item_cf_ranks(fitted.item_cf, split.sequences, split.valid)
    assert float(ndcg(ranks, 10).mean()) == best > 0
    assert {trial.config.kind for trial in fitted.trials} == set(KINDS)
    assert {trial.config.neighbours for trial in fitted.trials} == set(baselines.NEIGHBOURS)
    assert calls == [(i + 1, len(fitted.trials)) for i in range(len(fitted.trials))]
    assert (fitted.item_cf.decay, fitted.item_cf.horizon) == (fitted.config.decay, fitted.config.horizon)


def test_tuning_prefers_recent_events_where_only_the_last_one_matters() -> None:
    assert fit_baselines(leave_one_out(random_log(3, n_users=200))).config.decay < 1


def test_fitting_twice_gives_the_same_baselines() -> None:
    split = leave_one_out(random_log(4))
    first, second = fit_baselines(split), fit_baselines(split)
    assert first.config == second.config and first.trials == second.trials
    assert first.item_cf.neighbour.tobytes() == second.item_cf.neighbour.tobytes()
    assert first.item_cf.similarity.tobytes() == second.item_cf.similarity.tobytes()


def test_nothing_is_fitted_on_a_held_out_event() -> None:
    seqs = random_log(5)
    split = leave_one_out(seqs)
    changed = seqs.item.copy()
    changed[split.test.history_end] = (changed[split.test.history_end] + 7) % seqs.n_items
    other = leave_one_out(
        Sequences(seqs.user_ids, seqs.item_ids, seqs.offsets, changed, seqs.type, seqs.time_ms, False)
    )
    first, second = fit_baselines(split), fit_baselines(other)
    assert first.trials == second.trials
    assert first.item_cf.similarity.tobytes() == second.item_cf.similarity.tobytes()
    assert first.popularity.share.tobytes() == second.popularity.share.tobytes()
    leaky = Popularity.fit(seqs.item, seqs.n_items), Popularity.fit(changed, seqs.n_items)
    assert leaky[0].share.tobytes() != leaky[1].share.tobytes()  # the change would have been noticed


def test_popularity_counts_the_training_part_only() -> None:
    split = leave_one_out(log([[0, 1, 2], [0, 1, 2], [3, 3]], 4))
    assert fit_baselines(split).popularity.share.tolist() == [0.5, 0, 0, 0.5]


def test_horizon_leaves_out_only_what_weighs_next_to_nothing() -> None:
    assert ItemCFConfig("cosine", 10, 0.5).horizon == 10
    assert 0.5**10 < 1e-3
    assert ItemCFConfig("cosine", 10, 1.0).horizon == 50
    assert ItemCFConfig("cosine", 10, 0.99).horizon == 50
