"""Each quality of lists against what its definition says in loops."""

from __future__ import annotations

import math
from collections import Counter
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.evaluation import list_qualities
from service.artifact.array_types import IntArray

ITEMS = 12


@st.composite
def some_lists(draw: st.DrawFn, least: int = 1) -> IntArray:
    """Lists of distinct items, padded at the end."""
    depth = draw(st.integers(1, 6))
    rows = draw(st.lists(st.lists(st.integers(0, ITEMS - 1), max_size=depth, unique=True), min_size=least, max_size=8))
    return np.array([row + [-1] * (depth - len(row)) for row in rows], np.int64)


def firsts(lists: IntArray, k: int) -> list[list[int]]:
    return [[int(item) for item in row[:k] if item >= 0] for row in lists]


counts = st.lists(st.integers(0, 9), min_size=1, max_size=ITEMS).map(lambda values: np.array(values, np.int64))
ks = st.integers(1, 6)


@given(some_lists(), ks)
def test_exposure_counts_the_lists_that_show_an_item(lists: IntArray, k: int) -> None:
    seen = Counter(item for row in firsts(lists, k) for item in row)
    assert list_qualities.exposure(lists, k, ITEMS).tolist() == [seen[item] for item in range(ITEMS)]


@given(counts)
def test_entropy_is_the_mean_surprise(found: IntArray) -> None:
    total = int(found.sum())
    expected = sum(-c / total * math.log2(c / total) for c in found.tolist() if c)
    assert list_qualities.entropy(found) == pytest.approx(expected, abs=1e-12)
    assert 0 <= list_qualities.entropy(found) <= math.log2(len(found)) + 1e-12


@given(counts)
def test_gini_is_half_the_mean_difference_over_the_mean(found: IntArray) -> None:
    n, total = len(found), int(found.sum())
    apart = sum(abs(a - b) for a in found.tolist() for b in found.tolist())
    expected = apart / (2 * n * total) if total else 0.0
    assert list_qualities.gini(found) == pytest.approx(expected, abs=1e-12)


@given(some_lists(least=2), ks)
def test_inter_list_diversity_compares_every_pair_of_users(lists: IntArray, k: int) -> None:
    found = list_qualities.inter_list_diversity(lists, k, ITEMS)
    rows = [set(row) for row in firsts(lists, k)]
    for user, mine in enumerate(rows):
        apart = [1 - len(mine & other) / k for at, other in enumerate(rows) if at != user]
        assert found[user] == pytest.approx(sum(apart) / len(apart))
    pairs = [1 - len(a & b) / k for a, b in combinations(rows, 2)]
    assert found.mean() == pytest.approx(sum(pairs) / len(pairs))


def test_a_mean_over_pairs_varies_as_that_of_the_values_of_pairs() -> None:
    """Over many draws of users, beside what the bootstrap of one draw says."""
    rng = np.random.default_rng(0)
    popular = 1 / np.arange(1, 31)
    people = np.stack([rng.choice(30, 5, replace=False, p=popular / popular.sum()) for _ in range(4000)])
    drawn = [
        list_qualities.inter_list_diversity(people[rng.integers(0, 4000, 120)], 5, 30)
        for _ in range(600)
    ]  # fmt: skip
    true = np.std([values.mean() for values in drawn])
    said = {
        how: np.mean([np.std(of(values)) / len(values) ** 0.5 for values in drawn])
        for how, of in (("plain", np.asarray), ("of pairs", list_qualities.widened_for_pairs))
    }
    assert said["of pairs"] == pytest.approx(true, rel=0.1)
    assert said["plain"] < 0.6 * true
    assert list_qualities.widened_for_pairs(drawn[0]).mean() == pytest.approx(drawn[0].mean())


def test_one_user_differs_from_nobody() -> None:
    assert np.isnan(list_qualities.inter_list_diversity(np.array([[1, 2]]), 2, ITEMS)).tolist() == [True]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=ITEMS))
def test_divergences_are_those_of_the_definition(pairs: list[tuple[int, int]]) -> None:
    first, second = (np.array(side, np.int64) for side in zip(*pairs, strict=True))
    if not first.sum() or not second.sum():
        with pytest.raises(ValueError, match="nothing was counted"):
            list_qualities.jensen_shannon(first, second)
        return
    p, q = first / first.sum(), second / second.sum()
    half = sum(a / 2 * math.log2(2 * a / (a + b)) for a, b in zip(p, q, strict=True) if a)
    half += sum(b / 2 * math.log2(2 * b / (a + b)) for a, b in zip(p, q, strict=True) if b)
    assert list_qualities.jensen_shannon(first, second) == pytest.approx(half, abs=1e-9)
    assert list_qualities.jensen_shannon(first, second) == pytest.approx(
        list_qualities.jensen_shannon(second, first), abs=1e-12
    )
    smooth = (second + 1) / (second + 1).sum()
    expected = sum(a * math.log2(a / b) for a, b in zip(p, smooth, strict=True) if a)
    assert list_qualities.kullback_leibler(first, second) == pytest.approx(expected, abs=1e-9)


def test_alike_is_nothing_apart_and_disjoint_is_everything() -> None:
    assert list_qualities.jensen_shannon(np.array([3, 1, 0]), np.array([6, 2, 0])) == 0.0
    assert list_qualities.jensen_shannon(np.array([3, 1, 0]), np.array([0, 0, 5])) == 1.0


@given(st.lists(st.integers(0, ITEMS - 1), max_size=40))
def test_popularity_groups_hold_a_third_of_the_events_each(events: list[int]) -> None:
    group = list_qualities.popularity_group(np.array(events, np.int64), ITEMS)
    seen = Counter(events)
    order = sorted(range(ITEMS), key=lambda item: (-seen[item], item))
    laid_out = 0
    for item in order:
        third = 2 if not seen[item] else min(3 * laid_out // len(events), 2)
        assert group[item] == third
        laid_out += seen[item]


@given(some_lists(), ks, st.lists(st.integers(0, 2), min_size=ITEMS, max_size=ITEMS))
def test_tail_share_is_how_much_of_a_list_is_tail(lists: IntArray, k: int, group: list[int]) -> None:
    found = list_qualities.tail_share(lists, k, np.array(group))
    for share, row in zip(found, firsts(lists, k), strict=True):
        assert math.isnan(share) if not row else share == pytest.approx(sum(group[i] == 2 for i in row) / len(row))


@given(st.lists(st.integers(1, 60), min_size=1, max_size=60))
def test_groups_by_length_are_ordered_and_keep_ties_together(lengths: list[int]) -> None:
    group, bounds = list_qualities.length_groups(np.array(lengths))
    assert 1 <= len(bounds) <= 3
    for number, (least, greatest) in enumerate(bounds):
        assert sorted(length for length, g in zip(lengths, group, strict=True) if g == number) == sorted(
            length for length in lengths if least <= length <= greatest
        )
    assert all(before[1] < after[0] for before, after in pairwise(bounds))
