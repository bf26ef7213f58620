"""The transition-graph heuristic: rings as a plain search finds them, and lists as its authors describe them."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from loadtests.quality.heuristics import TGH_1, TGH_2, TransitionGraph
from model.data.dataset import Sequences
from model.evaluation.evaluate import DEPTH, Histories

ITEMS = 12
logs = st.lists(st.lists(st.integers(0, ITEMS - 1), min_size=1, max_size=8), min_size=1, max_size=6)


def log(histories: list[list[int]], items: int = ITEMS) -> Sequences:
    flat = np.array([item for history in histories for item in history], np.int64)
    offsets = np.concatenate([[0], np.cumsum([len(history) for history in histories])]).astype(np.int64)
    nothing = np.zeros(len(flat), np.int64)
    users = [f"u{n}" for n in range(len(histories))]
    return Sequences(users, [f"i{n}" for n in range(items)], offsets, flat, nothing, nothing)


def plain_rings(histories: list[list[int]], source: int, depth: int) -> list[set[int]]:
    """Breadth first, over a dictionary of what followed what."""
    after: dict[int, set[int]] = {}
    for history in histories:
        for first, second in pairwise(history):
            after.setdefault(first, set()).add(second)
    seen, ring, found = {source}, {source}, []
    for _ in range(depth):
        ring = {end for item in ring for end in after.get(item, ())} - seen
        seen |= ring
        found.append(ring)
    return found


@settings(max_examples=15, deadline=None)
@given(logs, st.integers(0, ITEMS - 1))
def test_rings_and_edges_are_those_of_a_plain_search(histories: list[list[int]], source: int) -> None:
    graph = TransitionGraph.fit(log(histories), sparse.csr_array((ITEMS, 1)))
    assert [set(ring.tolist()) for ring in graph.rings(source, 3)] == plain_rings(histories, source, 3)
    taken = Counter(pair for history in histories for pair in pairwise(history))
    of_source = {end: np.log1p(n) for (start, end), n in taken.items() if start == source}
    expected = np.zeros(ITEMS)
    for end, value in of_source.items():
        expected[end] = value / max(of_source.values())
    np.testing.assert_allclose(graph.edges[[source]].toarray().ravel(), expected)


@settings(max_examples=15, deadline=None)
@given(logs)
def test_lists_hold_no_item_twice_and_none_of_the_history(histories: list[list[int]]) -> None:
    of = log(histories, items := 30)
    features = sparse.csr_array(np.eye(items)[:, :5])
    asked = Histories(np.arange(of.n_users), of.offsets[1:], of)
    for budgets in (TGH_1, TGH_2):
        lists = TransitionGraph.fit(of, features).ranker(budgets)(asked)
        for found, history in zip(lists, histories, strict=True):
            shown = found[found >= 0].tolist()
            assert len(shown) == len(set(shown)) == min(DEPTH, items - len(set(history)))
            assert not set(shown) & set(history)


def test_a_ring_is_ranked_by_likeness_and_by_how_often_the_edge_was_taken() -> None:
    # 0 is followed by 1 three times and by 2 once; 2 is more like 0, and 3 is two steps away.
    histories = [[0, 1], [0, 1], [0, 1], [0, 2, 3]]
    features = np.array([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6], [1.0, 0.0]])
    graph = TransitionGraph.fit(log(histories, 4), sparse.csr_array(features))
    assert graph.alike(0).tolist() == pytest.approx([1.0, 0.6, 0.8, 1.0])
    # .6 + .5 against .8 + .5 · log 2 / log 4
    assert graph.picks(0, (1, 1), np.zeros(0, np.int64)) == ([1, 3], [2])
    assert graph.picks(0, (2, 1), np.zeros(0, np.int64)) == ([1, 2, 3], [])
    # Without item 1 the first ring is short, and nothing is left over to take its place but the second ring's.
    assert graph.picks(0, (2, 1), np.array([1])) == ([2, 3], [])


def test_what_an_earlier_ring_has_left_over_fills_a_later_one() -> None:
    histories = [[0, item] for item in (1, 2, 3, 4)]
    graph = TransitionGraph.fit(log(histories, 5), sparse.csr_array(np.eye(5)))
    # A ring offers no more than all budgets hold together: three.
    assert graph.picks(0, (1, 1), np.zeros(0, np.int64)) == ([1, 2], [])
    assert graph.picks(0, (1, 0, 2), np.zeros(0, np.int64)) == ([1, 2, 3], [])
    assert graph.picks(0, (3, 0), np.zeros(0, np.int64)) == ([1, 2, 3], [])


def test_the_last_but_one_item_gives_the_end_of_the_list() -> None:
    histories = [[8, item] for item in range(6)] + [[9, item] for item in range(4, 8)]
    of = log([*histories, [9, 8]], 20)
    graph = TransitionGraph.fit(of, sparse.csr_array(np.eye(20)))
    asked = Histories(np.array([of.n_users - 1]), of.offsets[-1:], of)
    [found] = graph.ranker(TGH_2)(asked)
    assert found[:6].tolist() == [0, 1, 2, 3, 4, 5]  # five of the last item, and one that it has left over
    assert found[6:8].tolist() == [6, 7]
