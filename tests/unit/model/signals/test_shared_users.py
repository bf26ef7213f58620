"""The integers behind item-CF and transitions: the same whatever the parts, and the similarities of `implicit`."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from implicit.nearest_neighbours import BM25Recommender, CosineRecommender, ItemItemRecommender, TFIDFRecommender
from scipy import sparse

from model.data.dataset import Sequences
from model.signals.shared_users import KINDS, ItemTotals, Kind, neighbour_table, shared, shared_rows, touched_items
from model.signals.transition_table import UNITS, transition_counts

N_ITEMS = 12
_THEIRS: dict[Kind, type[ItemItemRecommender]] = {
    "cosine": CosineRecommender,
    "tfidf": TFIDFRecommender,
    "bm25": BM25Recommender,
}


def log_of(histories: list[list[int]]) -> Sequences:
    flat = np.array([item for history in histories for item in history], np.int64)
    return Sequences(
        user_ids=[f"u{i}" for i in range(len(histories))],
        item_ids=[f"i{i}" for i in range(N_ITEMS)],
        offsets=np.cumsum([0, *map(len, histories)]).astype(np.int64),
        item=flat,
        type=np.zeros_like(flat),
        time_ms=np.zeros_like(flat),
        has_time=False,
    )


HISTORIES = st.lists(st.lists(st.integers(0, N_ITEMS - 1), max_size=15), max_size=12)


@pytest.mark.parametrize("kind", KINDS)
def test_the_similarities_are_those_of_implicit(kind: Kind) -> None:
    rng = np.random.default_rng(3)
    log = log_of([rng.integers(0, N_ITEMS, rng.integers(1, 8)).tolist() for _ in range(60)])
    touched = touched_items(log)
    nearest, similarity = neighbour_table(kind, 4, ItemTotals.of(touched), shared_rows(touched, kind))
    recommender = _THEIRS[kind](K=N_ITEMS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it hands COO matrices to itself and warns about that
        recommender.fit(sparse.csr_matrix(touched.astype(np.float64)), show_progress=False)
    theirs = recommender.similarity.toarray()
    assert np.allclose(theirs[np.arange(N_ITEMS)[:, None], nearest], similarity, rtol=1e-6)
    np.fill_diagonal(theirs, 0)
    assert np.allclose(np.sort(theirs, axis=1)[:, ::-1][:, :4], similarity, rtol=1e-6)


@given(HISTORIES, st.integers(0, 12), st.booleans())
@settings(deadline=None, max_examples=50)
def test_the_users_of_two_parts_add_up_to_those_of_the_whole(histories: list[list[int]], at: int, both: bool) -> None:
    whole, parts = touched_items(log_of(histories)), [log_of(histories[:at]), log_of(histories[at:])]
    everything = slice(0, N_ITEMS)
    touched = [touched_items(part) for part in parts]
    together = sum(shared(part, everything, weighted=both).toarray() for part in touched)
    assert (together == shared(whole, everything, weighted=both).toarray()).all()
    totals, all_totals = ItemTotals.of(touched[0]) + ItemTotals.of(touched[1]), ItemTotals.of(whole)
    assert (totals.users == all_totals.users).all()
    assert (totals.weight == all_totals.weight).all()
    assert (shared(whole, everything, weighted=True).diagonal() == totals.weight).all()


@given(HISTORIES, st.integers(0, 12))
@settings(deadline=None, max_examples=50)
def test_the_transitions_of_two_parts_add_up_to_those_of_the_whole(histories: list[list[int]], at: int) -> None:
    parts = transition_counts(log_of(histories[:at])) + transition_counts(log_of(histories[at:]))
    assert (parts.toarray() == transition_counts(log_of(histories)).toarray()).all()


def test_a_transition_counts_by_its_distance_in_whole_units() -> None:
    counts = transition_counts(log_of([[0, 1, 2, 1], [0, 1]])).toarray()
    assert counts[0, 1] == UNITS + UNITS // 3 + UNITS
    assert counts[0, 2] == UNITS // 2
    assert counts[1, 1] == 0
    assert counts[2, 1] == UNITS
