"""Both methods of diversity against plain definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.artifact.array_types import Float64Array
from service.artifact.items.catalogue import Catalogue
from service.artifact.items.catalogue_item import CatalogueItem
from service.artifact.scorers.popularity import Popularity
from service.rules.diversity import Dpp, Mmr, gain_of, relevance, similarities
from service.rules.items import Items
from service.rules.limits import Limit
from service.rules.selection import Gain
from service.rules.spec import Diversity
from tests.support.limited_choice import Problem, select

POPULARITY = Popularity.fit(np.zeros(1, np.int64), 4)


def _random(seed: int, n: int = 9) -> tuple[Float64Array, Float64Array]:
    rng = np.random.default_rng(seed)
    facets = (rng.random((n, 6)) < 0.4).astype(float)
    facets /= np.maximum(np.linalg.norm(facets, axis=1, keepdims=True), 1.0)
    alike = facets @ facets.T
    np.fill_diagonal(alike, 1.0)
    return rng.normal(size=n), alike


def _chosen(gain: Gain, n: int, k: int) -> list[int]:
    return select(Problem(np.zeros(n), np.zeros(n, np.int64)), k, gain).places


@given(st.integers(0, 10_000), st.floats(0.05, 1.0))
@settings(max_examples=40, deadline=None)
def test_the_incremental_factor_gives_the_determinants_of_the_greedy_choice(seed: int, weight: float) -> None:
    scores, alike = _random(seed)
    chosen = _chosen(Dpp(weight, scores, alike), len(scores), 5)
    kernel = 0.95 * alike + 0.05 * np.eye(len(scores))
    quality = np.exp(scores * (1.0 - weight) / weight / 2.0)
    kernel = quality[:, None] * kernel * quality
    for n in range(5):
        gains = {
            place: float(np.linalg.slogdet(kernel[np.ix_([*chosen[:n], place], [*chosen[:n], place])])[1])
            for place in range(len(scores))
            if place not in chosen[:n]
        }
        assert gains[chosen[n]] == pytest.approx(max(gains.values()), abs=1e-6)


@given(st.integers(0, 10_000), st.floats(0.0, 1.0))
@settings(max_examples=40, deadline=None)
def test_marginal_relevance_is_that_of_the_definition(seed: int, weight: float) -> None:
    scores, alike = _random(seed)
    chosen = _chosen(Mmr(weight, scores, alike), len(scores), 5)
    for n in range(5):
        values = {
            place: (1.0 - weight) * scores[place] - weight * max((alike[place, one] for one in chosen[:n]), default=0.0)
            for place in range(len(scores))
            if place not in chosen[:n]
        }
        assert values[chosen[n]] == pytest.approx(max(values.values()))


def test_items_are_alike_by_the_share_of_their_facets() -> None:
    catalogue = Catalogue.of(
        [
            CatalogueItem("0", None, ("x", "y")),
            CatalogueItem("1", None, ("x",)),
            CatalogueItem("2", None, (), "x"),
            CatalogueItem("3"),
        ]
    )
    half = 2**-0.5
    expected = np.array([[1.0, half, 0, 0], [half, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    assert np.allclose(similarities(Items(catalogue, POPULARITY, {}).facets(range(4))), expected)


def test_the_unit_of_scores_is_the_distance_from_the_first_to_the_last_of_the_list() -> None:
    assert relevance(np.array([1.0, 5.0, 3.0]), 2).tolist() == [-2.0, 0.0, -1.0]
    assert relevance(np.array([2.0, 2.0]), 2).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("method", ["mmr", "dpp"])
def test_limits_hold_under_diversity_as_well(method: str) -> None:
    scores, alike = _random(3)
    gain = gain_of(Diversity.model_validate({"method": method, "weight": 0.5}), scores, alike)
    members = frozenset({0, 1, 2, 3, 4})
    limits = [Limit(1, members, 4, high=1)]
    chosen = select(Problem(scores, np.zeros(len(scores), np.int64), limits), 4, gain).places
    assert len(members.intersection(chosen)) <= 1
