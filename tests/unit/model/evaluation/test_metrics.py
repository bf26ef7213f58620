"""Ranking metrics, against values computed by hand and against loops over users, items and pairs."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from model.data.dataset import ITEM_SCHEMA
from model.evaluation import metrics
from service.artifact.array_types import IntArray

LISTS = np.array([[3, 1, 2, 0], [4, 0, -1, -1], [-1, -1, -1, -1]], np.int64)
TARGETS = np.array([2, 4, 0], np.int64)
RANKS = np.array([2, 0, metrics.NOT_RANKED], np.int64)


def test_rank_of_the_target() -> None:
    assert metrics.target_ranks(LISTS, TARGETS).tolist() == RANKS.tolist()


def test_recall_by_hand() -> None:
    assert metrics.recall(RANKS, 2).tolist() == [0, 1, 0]
    assert metrics.recall(RANKS, 3).tolist() == [1, 1, 0]


def test_ndcg_by_hand() -> None:
    assert metrics.ndcg(RANKS, 3).tolist() == [0.5, 1, 0]  # 1 / log2(4)
    assert metrics.ndcg(RANKS, 2).tolist() == [0, 1, 0]


def test_mrr_by_hand() -> None:
    assert metrics.mrr(RANKS, 3).tolist() == pytest.approx([1 / 3, 1, 0])
    assert metrics.mrr(RANKS, 2).tolist() == [0, 1, 0]


def test_coverage_counts_the_items_of_the_first_k() -> None:
    assert metrics.coverage(LISTS, 1, 10) == 0.2
    assert metrics.coverage(LISTS, 4, 10) == 0.5


def test_novelty_by_hand() -> None:
    # shares: item 0 1/2, item 1 1/4, items 2 and 3 1/8; item 4 was never seen and counts as once
    information = metrics.self_information(np.array([0, 0, 0, 0, 1, 1, 2, 3]), 5)
    assert information.tolist() == [1, 2, 3, 3, 3]
    novelty = metrics.novelty(LISTS, 3, information)
    assert novelty[:2].tolist() == pytest.approx([(3 + 2 + 3) / 3, (3 + 1) / 2])
    assert math.isnan(novelty[2])


def test_diversity_by_hand() -> None:
    content = sparse.csr_array(np.array([[1, 1, 0], [1, 0, 0], [0, 0, 1], [0, 0, 0]], np.float64))
    lists = np.array([[0, 1, -1], [0, 1, 2], [0, 3, -1], [1, 1, 1]], np.int64)
    cosine = 1 / math.sqrt(2)
    values = metrics.diversity(lists, 3, content)
    assert values[0] == pytest.approx(1 - cosine)
    assert values[1] == pytest.approx(1 - cosine / 3)
    assert math.isnan(values[2])  # one item with content: no pair
    assert values[3] == pytest.approx(0)


def test_mean_leaves_out_users_without_a_value() -> None:
    assert metrics.mean(np.array([1.0, np.nan, 3.0])) == 2
    assert metrics.mean(np.array([np.nan])) is None


@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 6))
def test_accuracy_equals_the_slow_reference(seed: int, k: int, n_users: int) -> None:
    lists, targets = random_lists(seed, n_users), np.random.default_rng(seed).integers(0, 15, n_users)
    ranks = metrics.target_ranks(lists, targets)
    for u in range(n_users):
        first = [i for i in lists[u].tolist() if i >= 0][:k]
        place = first.index(targets[u]) if targets[u] in first else None
        assert metrics.recall(ranks, k)[u] == (place is not None)
        assert metrics.ndcg(ranks, k)[u] == (0 if place is None else pytest.approx(1 / math.log2(place + 2)))
        assert metrics.mrr(ranks, k)[u] == (0 if place is None else pytest.approx(1 / (place + 1)))


@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 6))
def test_diversity_and_novelty_equal_the_slow_reference(seed: int, k: int, n_users: int) -> None:
    rng, lists = np.random.default_rng(seed), random_lists(seed, n_users)
    sets = rng.random((15, 6)) < 0.3
    seen = rng.integers(0, 15, 30)
    diversity = metrics.diversity(lists, k, sparse.csr_array(sets.astype(np.float64)))
    novelty = metrics.novelty(lists, k, metrics.self_information(seen, 15))
    for u in range(n_users):
        items = [i for i in lists[u].tolist() if i >= 0][:k]
        bits = [-math.log2(max(1, int((seen == i).sum())) / 30) for i in items]
        assert same(novelty[u], bits)
        described = [i for i in items if sets[i].any()]
        assert same(diversity[u], [1 - cosine(sets, i, j) for i, j in combinations(described, 2)])


def random_lists(seed: int, n_users: int, depth: int = 10, n_items: int = 15) -> IntArray:
    rng = np.random.default_rng(seed)
    lists = np.stack([rng.permutation(n_items)[:depth] for _ in range(n_users)]).astype(np.int64)
    for row in lists:
        row[rng.integers(0, depth + 1) :] = -1
    return lists


def cosine(sets: np.ndarray[tuple[int, int], np.dtype[np.bool_]], i: int, j: int) -> float:
    return float((sets[i] & sets[j]).sum()) / math.sqrt(float(sets[i].sum()) * float(sets[j].sum()))


def same(value: float, parts: list[float]) -> bool:
    return math.isnan(value) if not parts else math.isclose(value, sum(parts) / len(parts), abs_tol=1e-9)


def items_table(**columns: list[object]) -> pl.DataFrame:
    n = len(columns["item_id"])
    return pl.DataFrame({name: columns.get(name, [None] * n) for name in ITEM_SCHEMA}, schema=ITEM_SCHEMA)


def test_content_of_tags_and_attributes() -> None:
    table = items_table(item_id=["a", "b", "c"], category=[["x", "y"], ["y"], None], attributes=[["y"], None, None])
    content = metrics.item_content(table, ["b", "a", "c", "not in the table"]).toarray()
    # as a category and as an attribute "y" is two features
    assert content.sum(axis=1).tolist() == [1, 3, 0, 0]
    assert (content @ content.T)[0, 1] == 1


def test_content_of_a_path_knows_the_parents_of_a_level() -> None:
    table = items_table(item_id=["a", "b", "c"], category=[["hair", "tools"], ["nails", "tools"], ["hair"]])
    content = metrics.item_content(table, ["a", "b", "c"], "path").toarray()
    assert (content @ content.T).tolist() == [[2, 0, 1], [0, 2, 0], [1, 0, 1]]
