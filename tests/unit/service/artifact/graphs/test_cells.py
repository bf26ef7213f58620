"""The cells of a catalogue: what belongs to one, what stands for it, and its file."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.artifact.arrays import map_arrays, save_arrays
from service.artifact.graphs.cells import ITEMS_MAX, SPREAD, Cells, cell_bounds, exact_width, level_of
from service.artifact.trie import Trie


def catalogue(seed: int, n_items: int, sizes: tuple[int, ...]) -> tuple[Trie, np.ndarray]:
    rng = np.random.default_rng(seed)
    flat = rng.choice(int(np.prod(sizes)), n_items, replace=False)
    codes = np.stack(np.unravel_index(flat, sizes), axis=1).astype(np.int64)
    return Trie.build(codes), rng.normal(size=(n_items + 2, 6)).astype(np.float32)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 99), n_items=st.integers(1, 700), level=st.integers(0, 2))
def test_every_cell_is_a_range_of_leaves_that_begin_alike_and_are_not_too_many(
    seed: int, n_items: int, level: int
) -> None:
    trie, table = catalogue(seed, n_items, (3, 16, 16))
    cells = Cells.build(trie, table, rows=5, level=level)
    paths = trie.paths()
    assert cells.first_leaf[0] == 0 and cells.first_leaf[-1] == n_items
    for cell, (first, after) in enumerate(itertools.pairwise(cells.first_leaf)):
        assert 0 < after - first <= ITEMS_MAX
        assert len({tuple(path[:level]) for path in paths[first:after]}) == 1
        np.testing.assert_array_equal(cells.of_leaf(np.arange(first, after)), cell)


def test_centroids_and_spread_are_those_of_plain_loops() -> None:
    trie, table = catalogue(1, 300, (4, 8, 16))
    cells = Cells.build(trie, table, rows=5)
    query = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    for cell, (first, after) in enumerate(itertools.pairwise(cells.first_leaf)):
        items = table[trie.leaf_item[first:after]].astype(np.float64)
        mean = items.mean(axis=0)
        spread = SPREAD * np.linalg.norm(items - mean, axis=1).mean()
        assert cells.spread[cell] == pytest.approx(spread, abs=1e-5)
        assert replace(cells, weight=0.0).spread[cell] == 0.0
        # As many dimensions as the vectors have: nothing is lost.
        promised = query @ mean + np.linalg.norm(query, axis=1) * spread
        np.testing.assert_allclose(cells.scores(query)[:, cell], promised, atol=1e-4)
    np.testing.assert_allclose(
        query @ cells.query_basis @ cells.leaf_vectors.T, query @ table[trie.leaf_item].T, atol=1e-4
    )


def test_fewer_dimensions_keep_the_products_that_queries_ask_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.artifact.graphs.cells.DIMENSIONS", 2)
    trie, table = catalogue(2, 300, (4, 8, 16))
    rng = np.random.default_rng(0)
    queries = (rng.normal(size=(50, 2)) @ rng.normal(size=(2, 6))).astype(np.float32)
    exact = queries @ table[trie.leaf_item].T

    def lost(cells: Cells) -> float:
        """Largest error of the products, up to what is the same for all items."""
        error = queries @ cells.query_basis @ cells.leaf_vectors.T - exact
        return float(np.abs(error - error.mean(axis=1, keepdims=True)).max())

    assert lost(Cells.build(trie, table, queries=queries)) < 0.2
    assert lost(Cells.build(trie, table)) > 1.0


def test_the_level_is_the_deepest_whose_nodes_hold_two_items_each() -> None:
    trie, _ = catalogue(3, 300, (4, 8, 16))
    assert trie.n_nodes == (4, 32, 300)
    assert level_of(trie) == 2
    assert level_of(Trie.build(np.arange(9)[:, None])) == 0
    assert len(cell_bounds(trie, 0)) == 1 + -(-300 // ITEMS_MAX)


def test_a_changed_catalogue_has_the_cells_of_one_built_anew() -> None:
    trie, table = catalogue(4, 300, (4, 8, 16))
    cells = Cells.build(trie, table, rows=7)
    paths = np.concatenate([trie.paths(), [[3, 7, 99]]])
    more = Trie.build(paths, np.append(trie.leaf_item, 302))
    longer = np.concatenate([table, np.ones((1, 6), np.float32)])
    changed = cells.over(more, longer)
    assert changed.first_leaf[-1] == 301 and changed.rows == 7
    np.testing.assert_array_equal(changed.query_basis, cells.query_basis)
    cell = int(changed.of_leaf(more.item_leaf[[302]])[0])
    first, after = changed.first_leaf[cell : cell + 2]
    mean = longer[more.leaf_item[first:after]].mean(axis=0)
    np.testing.assert_allclose(changed.vectors[cell], mean @ cells.item_basis, atol=1e-5)


def test_a_file_gives_the_same_cells_and_a_damaged_one_none(tmp_path: Path) -> None:
    trie, table = catalogue(5, 300, (4, 8, 16))
    cells = replace(Cells.build(trie, table, rows=9), weight=0.15)
    file = tmp_path / "cells.npz"
    cells.save(file)
    same = Cells.load(file)
    assert (same.level, same.rows, same.weight, len(same)) == (cells.level, 9, 0.15, len(cells))
    np.testing.assert_array_equal(same.leaf_vectors, cells.leaf_vectors)
    np.testing.assert_array_equal(same.spread, cells.spread)
    arrays = map_arrays(file)
    save_arrays(file, **{**arrays, "settings": arrays["settings"] + 1})
    with pytest.raises(ValueError, match="export the model again"):
        Cells.load(file)
    save_arrays(file, **{**arrays, "distance": arrays["distance"][1:]})
    with pytest.raises(ValueError, match="does not hold cells"):
        Cells.load(file)


def test_a_file_of_the_first_format_is_read_with_the_weight_that_all_had(tmp_path: Path) -> None:
    trie, table = catalogue(6, 300, (4, 8, 16))
    cells = Cells.build(trie, table, rows=9)
    file = tmp_path / "cells.npz"
    cells.save(file)
    arrays = map_arrays(file)
    arrays.pop("weight")
    first = {**arrays, "settings": np.array([1, cells.level, 9]), "spread": 0.2 * arrays.pop("distance")}
    first.pop("distance")
    save_arrays(file, **first)
    old = Cells.load(file)
    assert old.weight == 0.2
    np.testing.assert_allclose(old.spread, cells.spread, rtol=1e-6)
    np.testing.assert_allclose(old.over(trie, table).spread, cells.spread, rtol=1e-6)


def test_more_items_are_compared_in_all_dimensions_than_join() -> None:
    assert exact_width(16) == 256 and exact_width(112) == 448
