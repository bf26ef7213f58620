"""Repeat purchase against the plain sum, and its choice of a decay."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.data.dataset import sequences
from model.data.split import leave_one_out
from model.evaluation.baselines import fit_repeat
from model.evaluation.evaluate import evaluate, repeat_ranker
from model.training.validation import validation_ndcg
from service.artifact.features import ContextVocabulary, Vocabulary
from service.artifact.scorers.popularity import Popularity
from service.artifact.scorers.repeat_purchase import Repeat
from tests.support.data_builders import tiny_dataset
from tests.support.networks import random_network

ITEMS = 6


@given(
    st.lists(st.integers(-1, ITEMS + 1), max_size=12),
    st.floats(0.05, 1.0),
    st.integers(0, 8),
    st.sets(st.integers(0, ITEMS - 1)),
    st.sets(st.integers(0, ITEMS - 1)),
)
def test_it_is_the_plain_sum_over_the_user_s_own_items(
    history: list[int], decay: float, k: int, allowed: set[int], excluded: set[int]
) -> None:
    score: dict[int, float] = {}
    last: dict[int, int] = {}
    for place, item in enumerate(history):
        if 0 <= item < ITEMS:
            score[item] = score.get(item, 0.0) + decay ** (len(history) - 1 - place)
            last[item] = place
    open_ = np.isin(np.arange(ITEMS), list(allowed))
    items, scores = Repeat(ITEMS, decay).recommend(
        np.array(history, np.int64), k, open_, np.array(sorted(excluded), np.int64)
    )
    wanted = {item for item in score if item in allowed and item not in excluded}
    assert len(items) == min(k, len(wanted)) and set(items.tolist()) <= wanted
    np.testing.assert_allclose(scores, [score[item] for item in items], rtol=1e-5)
    left = [score[item] for item in wanted - set(items.tolist())]
    assert not left or k == 0 or max(left) <= float(scores.min()) * (1 + 1e-5)
    for one, other in itertools.pairwise(items):
        assert score[one] > score[other] * (1 - 1e-9)
        assert score[one] != score[other] or last[one] > last[other]


def test_the_decay_is_chosen_on_validation_and_what_is_bought_again_is_found() -> None:
    """Every user repeats the last item, after many events of another."""
    log = sequences(tiny_dataset(30, 20, min_events=9, max_events=9))
    item = log.item.reshape(30, 9).copy()
    item[:, :5] = item[:, :1]
    item[:, 6:] = item[:, 5:6] = (item[:, :1] + 7) % 20
    split = leave_one_out(replace(log, item=item.reshape(-1)))
    repeat = fit_repeat(split)
    systems = {"repeat": repeat_ranker(repeat, Popularity.fit(split.train.item, 20))}
    figures = evaluate(systems, split, exclude_history=False, samples=1).systems["repeat"].figures
    assert figures["recall@10"] == 1.0
    kept_out = evaluate(systems, split, samples=1).systems["repeat"].figures
    assert kept_out["recall@10"] == 0.0, "with the history taken out only popularity is left"


def test_a_decay_outside_its_range_is_refused() -> None:
    for decay in (0.0, 1.5):
        with pytest.raises(ValueError, match="decay"):
            Repeat(ITEMS, decay)


def test_validation_counts_what_is_taken_again_only_where_lists_may_hold_it() -> None:
    log = sequences(tiny_dataset(30, 20, min_events=9, max_events=9))
    item = log.item.reshape(30, 9).copy()
    item[:, -3:] = item[:, :1]
    split = leave_one_out(replace(log, item=item.reshape(-1)))
    model, vocabulary = random_network(n_items=20), Vocabulary.of(log.item_ids, ContextVocabulary(), has_time=True)
    assert validation_ndcg(model, split, vocabulary, 100) == 0.0
    assert validation_ndcg(model, split, vocabulary, 100, exclude_history=False) > 0.0
