"""The choice of candidates: recall as lists reach it, and what the manifest says."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from export import choose_candidates
from export.choose_candidates import exhaustive, in_best_order, note, recall, with_candidates
from service.artifact.graphs.cells import SPREADS, Cells
from service.artifact.trie import Trie
from tests.support.artifacts import random_parts
from tests.support.networks import random_network

PARTS = random_parts(random_network(seed=6, n_items=200, sizes=(8, 8, 8)))
TRIE = Trie.build(PARTS.tokenizer.codes)
VECTORS = PARTS.model.item_table().detach().numpy()
QUERIES = np.random.default_rng(0).normal(size=(30, VECTORS.shape[1])).astype(np.float32)


def test_recall_grows_with_the_rows_to_all_of_the_exhaustive_list() -> None:
    bias = np.random.default_rng(1).normal(size=200).astype(np.float32)
    asked = exhaustive(QUERIES, VECTORS[TRIE.leaf_item], 0.7, bias)
    for row, q in enumerate(QUERIES):
        promised = 0.7 * VECTORS[TRIE.leaf_item] @ q + bias
        assert set(asked.best[row]) == set(np.argsort(-promised)[:10])
    found = [recall(Cells.build(TRIE, VECTORS, rows=rows), asked) for rows in (10, 40, 100, 200)]
    assert found == sorted(found) and 0.1 < found[0] < found[2] < found[3] == 1.0


def test_the_order_of_the_cells_is_the_one_that_finds_the_lists_with_the_fewest_items() -> None:
    bias = np.random.default_rng(1).normal(size=200).astype(np.float32)
    asked = exhaustive(QUERIES, VECTORS[TRIE.leaf_item], 0.7, bias)
    cells = Cells.build(TRIE, VECTORS)

    def needed(weight: float) -> float:
        """The items that are read until .99 of the lists are found, in plain loops."""
        read = []
        for q, best in zip(QUERIES, asked.best, strict=True):
            scores = []
            for cell, (first, after) in enumerate(itertools.pairwise(cells.first_leaf.tolist())):
                added = bias[first:after]
                mean = VECTORS[TRIE.leaf_item[first:after]].mean(axis=0)
                far = weight * np.linalg.norm(q) * cells.distance[cell]
                scores.append((-(0.7 * (q @ mean + far) + (added.mean() + added.max()) / 2), cell))
            count, at = 0, {}
            for _, cell in sorted(scores):
                count += int(cells.first_leaf[cell + 1] - cells.first_leaf[cell])
                at[cell] = count
            read += [at[int(cells.of_leaf(np.array([leaf]))[0])] for leaf in best]
        return float(np.quantile(read, 0.99))

    by_weight = {weight: needed(weight) for weight in SPREADS}
    assert len(set(by_weight.values())) > 1
    assert by_weight[in_best_order(cells, asked).weight] == min(by_weight.values())
    nobody = exhaustive(QUERIES[:0], VECTORS[TRIE.leaf_item], 0.7, bias)
    assert in_best_order(cells, nobody) is cells


def choose(monkeypatch: pytest.MonkeyPatch, wanted: Any, most: int, rows: tuple[int, ...]) -> Any:
    monkeypatch.setattr(choose_candidates, "dense_by_rule", lambda n: n <= most)
    monkeypatch.setattr(choose_candidates, "ROWS", rows)
    monkeypatch.setattr(choose_candidates, "_queries", lambda *_: QUERIES)
    split: Any = None
    return with_candidates(replace(PARTS, dense=None), split, wanted)


def test_a_large_catalogue_gets_the_fewest_rows_that_find_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = choose(monkeypatch, "measured", 100, (10, 40, 200, 400))
    about = parts.about["candidates"]
    assert not parts.dense_candidates and parts.cells.rows == about["rows"] == 200
    assert (about["chosen"], about["by"], about["questions"]) == ("cells", "recall", 15)
    assert about["spread"] == parts.cells.weight
    assert list(about["recall"]) == ["10", "40", "200", "400"] and about["recall"]["200"] >= 0.995
    assert note(about) == (
        "candidates: 200 items of the best cells are read for a list, which hold 100.0% of the exhaustive top ten on "
        "validation"
    )


def test_cells_that_find_too_little_are_left_out_unless_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    left_out = choose(monkeypatch, "measured", 100, (3, 5))
    assert (left_out.cells, left_out.dense_candidates) == (None, False)
    about = left_out.about["candidates"]
    assert about["chosen"] == "signals" and "find too little" in str(note(about))
    forced = choose(monkeypatch, "cells", 1000, (3, 5))
    assert forced.cells.rows == 5 and forced.about["candidates"]["by"] == "option"


def test_small_catalogues_and_options_need_no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    by_size = choose(monkeypatch, "measured", 1000, ())
    assert by_size.dense_candidates and by_size.about["candidates"] == {"chosen": "all", "by": "size"}
    assert note(by_size.about["candidates"]) is None
    assert not choose(monkeypatch, "signals", 1000, ()).dense_candidates
    assert choose(monkeypatch, "all", 10, ()).dense_candidates
