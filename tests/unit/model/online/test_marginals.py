"""Marginals of sampled lists, against enumeration and against draws."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from model.online.marginals import Law, all_marginals, conditionals, log_weights, marginals
from service.engine.decode.draws import nucleus


def enumerated(scores: np.ndarray, law: Law, k: int) -> np.ndarray:
    """P(item at position), by going through all lists."""
    found = np.zeros((len(scores), k))
    for order in permutations(range(len(scores)), k):
        probability = np.exp(conditionals(scores, law, np.array(order)).sum())
        for position, item in enumerate(order):
            found[item, position] += probability
    return found


LAWS = [Law(), Law(0.3), Law(3.0), Law(nucleus=0.5), Law(0.7, 0.9), Law(nucleus=0.05), Law(0.05)]


@pytest.mark.parametrize("law", LAWS)
def test_marginals_are_those_of_all_lists(law: Law) -> None:
    rng = np.random.default_rng(1)
    for k, n in ((1, 4), (3, 5), (4, 4), (5, 6)):
        scores = rng.normal(scale=2.0, size=n)
        assert marginals(scores, law, k) == pytest.approx(enumerated(scores, law, k), abs=1e-8)


def test_equal_scores_and_hopeless_items_are_no_exception() -> None:
    scores = np.array([0.0, 0.0, 0.0, -800.0])
    found = marginals(scores, Law(), 4)
    assert found[:3, :3] == pytest.approx(np.full((3, 3), 1 / 3), abs=1e-8)
    assert found[3] == pytest.approx([0, 0, 0, 1], abs=1e-8)


def test_lists_by_score_have_one_item_at_each_position() -> None:
    assert marginals(np.array([1.0, 3.0, 3.0]), Law(sampled=False), 2).tolist() == [[0, 0], [1, 0], [0, 1]]


def test_lists_of_any_size_are_computed_together() -> None:
    rng = np.random.default_rng(2)
    scores = [rng.normal(scale=3, size=n).astype(np.float32) for n in (1, 240, 3, 60, 61, 7)]
    laws = [LAWS[i] for i in (0, 4, 1, 3, 0, 5)]
    for one, law, found in zip(scores, laws, all_marginals(scores, laws, 10), strict=True):
        assert found.shape == (len(one), min(10, len(one)))
        assert found.sum(axis=0) == pytest.approx(np.ones(found.shape[1]), abs=1e-7)
        assert found == pytest.approx(marginals(one, law, 10), abs=1e-9)
    wanted = [np.arange(0, len(one), 3) for one in scores]
    for rows, few, found in zip(
        wanted, all_marginals(scores, laws, 10, wanted), all_marginals(scores, laws, 10), strict=True
    ):
        assert few[rows] == pytest.approx(found[rows], abs=1e-9)
        assert len(few) == 1 or not few[1].any()


def test_marginals_are_the_frequencies_of_draws() -> None:
    rng = np.random.default_rng(3)
    scores, law, k, draws = rng.normal(size=40), Law(0.8, 0.8), 6, 40_000
    log_weight = log_weights(scores, law)
    key = log_weight + rng.gumbel(size=(draws, 40))
    key[:, ~nucleus(log_weight, law.nucleus)] -= 1e6
    order = np.argsort(-key, axis=1)[:, :k]
    counts = np.stack([np.bincount(order[:, position], minlength=40) for position in range(k)], axis=1)
    expected = marginals(scores, law, k)
    error = np.sqrt(expected * (1 - expected) / draws) + 1e-9
    assert (np.abs(counts / draws - expected) / error).max() < 5


def test_a_list_that_the_law_cannot_draw_has_no_probability() -> None:
    found = conditionals(np.array([5.0, 0.0, 0.0]), Law(nucleus=0.5), np.array([1, 0]))
    assert found.tolist() == [-np.inf, -np.inf]
