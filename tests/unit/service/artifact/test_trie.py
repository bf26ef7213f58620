"""The trie in CSR form against a plain dictionary of prefixes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.reference.closed_nodes import closed_nodes
from service.artifact.array_types import IntArray
from service.artifact.trie import Trie

Prefix = tuple[int, ...]


@st.composite
def paths(draw: st.DrawFn) -> IntArray:
    """[N, K] distinct paths in any order, K of 1 … 4."""
    levels = draw(st.integers(1, 4))
    rows = draw(st.lists(st.tuples(*[st.integers(0, 5)] * levels), min_size=1, max_size=40, unique=True))
    return np.array(rows, np.int64)


class PrefixDict:
    """The slow reference: nodes of a level are its distinct prefixes in sorted order."""

    def __init__(self, codes: IntArray) -> None:
        self.codes = [tuple(row) for row in codes.tolist()]
        self.levels = codes.shape[1]
        self.nodes: list[list[Prefix]] = [
            sorted({code[:depth] for code in self.codes}) for depth in range(self.levels + 1)
        ]

    def children(self, level: int, node: int) -> list[int]:
        prefix = self.nodes[level][node]
        return [n for n, path in enumerate(self.nodes[level + 1]) if path[:level] == prefix]

    def items(self, level: int, node: int) -> set[int]:
        prefix = self.nodes[level][node]
        return {item for item, code in enumerate(self.codes) if code[:level] == prefix}


@given(paths())
@settings(max_examples=30, deadline=None)
def test_children_tokens_and_parents_are_those_of_a_dictionary_of_prefixes(codes: IntArray) -> None:
    trie, slow = Trie.build(codes), PrefixDict(codes)
    assert trie.n_nodes == tuple(len(nodes) for nodes in slow.nodes[1:])
    assert (trie.levels, trie.n_items) == (codes.shape[1], len(codes))
    for level in range(trie.levels):
        sizes = []
        for node in range(len(slow.nodes[level])):
            children = slow.children(level, node)
            low, high = trie.first_child[level][node : node + 2]
            assert list(range(low, high)) == children
            assert trie.token[level][low:high].tolist() == [slow.nodes[level + 1][c][-1] for c in children]
            assert (trie.parent[level][low:high] == node).all()
            sizes.append(len(children))
        assert trie.branching[level] == max(sizes)


@given(paths())
@settings(max_examples=30, deadline=None)
def test_leaves_under_a_node_are_its_items_and_one_leaf_is_one_item(codes: IntArray) -> None:
    trie, slow = Trie.build(codes), PrefixDict(codes)
    assert sorted(trie.leaf_item.tolist()) == list(range(len(codes)))
    assert (trie.leaf_item[trie.item_leaf] == np.arange(len(codes))).all()
    for level in range(trie.levels):
        for node in range(len(slow.nodes[level])):
            low, high = trie.first_leaf[level][node : node + 2]
            assert set(trie.leaf_item[low:high].tolist()) == slow.items(level, node)


@given(paths(), st.data())
@settings(max_examples=30, deadline=None)
def test_allowed_leaves_are_counted_under_every_node(codes: IntArray, data: st.DataObject) -> None:
    trie, slow = Trie.build(codes), PrefixDict(codes)
    allowed = np.array(data.draw(st.lists(st.booleans(), min_size=len(codes), max_size=len(codes))))
    counts = trie.node_counts(allowed)
    for level in range(1, trie.levels + 1):
        expected = [
            sum(bool(allowed[item]) for item in slow.items(level, node)) for node in range(len(slow.nodes[level]))
        ]
        assert counts[level - 1].tolist() == expected


@given(paths(), st.data())
@settings(max_examples=30, deadline=None)
def test_ancestors_of_a_leaf_are_the_prefixes_of_its_path(codes: IntArray, data: st.DataObject) -> None:
    trie, slow = Trie.build(codes), PrefixDict(codes)
    items = np.array(data.draw(st.lists(st.integers(0, len(codes) - 1), max_size=6)), np.int64)
    nodes = trie.ancestors(trie.item_leaf[items])
    for level, found in enumerate(nodes, start=1):
        assert [slow.nodes[level][n] for n in found] == [slow.codes[item][:level] for item in items]


@given(paths(), st.data())
@settings(max_examples=40, deadline=None)
def test_closed_nodes_are_those_whose_every_allowed_item_is_excluded(codes: IntArray, data: st.DataObject) -> None:
    trie, slow = Trie.build(codes), PrefixDict(codes)
    n = len(codes)
    allowed = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    excluded = np.array(data.draw(st.lists(st.integers(0, n - 1), max_size=2 * n)), np.int64)
    closed = closed_nodes(trie, trie.node_counts(allowed), excluded)
    gone = set(excluded.tolist())
    for level in range(1, trie.levels + 1):
        expected = []
        for node in range(len(slow.nodes[level])):
            open_items = {item for item in slow.items(level, node) if allowed[item]}
            if open_items and open_items <= gone:
                expected.append(node)
        assert closed[level - 1].tolist() == expected
        assert len(expected) <= len(gone)


def test_two_items_with_one_path_are_refused() -> None:
    with pytest.raises(ValueError, match="1 items share another item's token path"):
        Trie.build(np.array([[0, 1], [2, 0], [0, 1]]))


@pytest.mark.parametrize("codes", [np.zeros((0, 2), np.int64), np.zeros((2, 0), np.int64), np.arange(3)])
def test_a_trie_of_nothing_is_refused(codes: IntArray) -> None:
    with pytest.raises(ValueError, match="at least one item and one level"):
        Trie.build(codes)


def test_negative_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        Trie.build(np.array([[0, -1]]))


@given(paths())
@settings(max_examples=10, deadline=None)
def test_a_trie_is_the_same_after_save_and_load(tmp_path_factory: pytest.TempPathFactory, codes: IntArray) -> None:
    path = tmp_path_factory.mktemp("trie") / "trie.npz"
    trie = Trie.build(codes)
    trie.save(path)
    with np.load(path, allow_pickle=False) as file:
        assert all(file[name].dtype == np.int64 for name in file.files)
    loaded = Trie.load(path)
    for name in ("first_child", "token", "parent", "first_leaf"):
        for ours, theirs in zip(getattr(trie, name), getattr(loaded, name), strict=True):
            assert (ours == theirs).all()
    assert (loaded.leaf_item == trie.leaf_item).all()
    assert (loaded.item_leaf == trie.item_leaf).all()


@given(paths(), st.data())
@settings(max_examples=20, deadline=None)
def test_a_trie_over_chosen_indices_is_the_same_trie(codes: IntArray, data: st.DataObject) -> None:
    n = len(codes)
    items = np.array(data.draw(st.permutations(range(2 * n)))[:n], np.int64)
    plain, chosen = Trie.build(codes), Trie.build(codes, items)
    assert (chosen.leaf_item == items[plain.leaf_item]).all()
    assert sorted(np.flatnonzero(chosen.item_leaf >= 0).tolist()) == sorted(items.tolist())
    allowed = np.zeros(2 * n, np.bool_)
    allowed[items] = np.arange(n) % 2 == 0
    for ours, theirs in zip(chosen.node_counts(allowed), plain.node_counts(allowed[items]), strict=True):
        assert ours.tolist() == theirs.tolist()
    everything = np.ones(2 * n, np.bool_)
    closed = closed_nodes(chosen, chosen.node_counts(everything), np.arange(-1, 3 * n))
    assert [len(nodes) for nodes in closed] == list(chosen.n_nodes)


@given(paths())
@settings(max_examples=20, deadline=None)
def test_paths_and_children_are_those_of_the_codes(codes: IntArray) -> None:
    trie, slow = Trie.build(codes), PrefixDict(codes)
    assert [tuple(path) for path in trie.paths().tolist()] == sorted(slow.codes)
    for level in range(trie.levels):
        for node, prefix in enumerate(slow.nodes[level]):
            expected = [slow.nodes[level + 1][child][-1] for child in slow.children(level, node)]
            assert trie.children(prefix).tolist() == expected
        assert trie.children((99,) * level).tolist() == ([] if level else trie.token[0].tolist())


@given(paths(), st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_rows_of_children_hold_tokens_and_bits_by_place(codes: IntArray, seed: int) -> None:
    trie = Trie.build(codes)
    for level in range(trie.levels):
        ok = np.random.default_rng(seed).random(trie.n_nodes[level]) < 0.5
        places = 8 * trie.row_bytes(level)
        bits, tokens = trie.row_bits(level, ok), trie.row_tokens(level, places)
        assert places - 8 < trie.branching[level] <= places
        for node, (low, high) in enumerate(itertools.pairwise(trie.first_child[level])):
            padding = [0] * (places - (high - low))
            assert [(int(bits[node, i // 8]) >> i % 8) & 1 for i in range(places)] == [*ok[low:high], *padding]
            assert tokens[node].tolist() == [*trie.token[level][low:high], *padding]


def test_a_node_with_many_children_has_several_bytes() -> None:
    codes = np.stack([np.repeat([0, 1, 2], [17, 1, 9]), np.arange(27)], axis=1)
    bits = Trie.build(codes).row_bits(1, np.arange(27) % 3 == 0)
    assert [[f"{byte:08b}" for byte in row] for row in bits] == [
        ["01001001", "10010010", "00000000"],
        ["00000000"] * 3,
        ["01001001", "00000000", "00000000"],
    ]
