"""A filter tests items one by one as its mask does, so lists without a mask are those with one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.artifact.array_types import BoolArray
from service.artifact.items import item_filters
from service.artifact.items.catalogue import Catalogue
from service.artifact.items.catalogue_item import CatalogueItem
from service.artifact.items.filter_conditions import Filters
from service.artifact.scorers.item_cf import ItemCF
from service.artifact.scorers.popularity import Popularity
from service.engine.fallback import Constraints, Fallback
from service.signals.user_history import UserHistory
from tests.support.networks import random_catalogue

N = 60

filters = st.fixed_dictionaries(
    {},
    optional={
        "category": st.lists(st.sampled_from([*"abcd", "late", "z"]), min_size=1, max_size=4),
        "brand": st.lists(st.sampled_from([*"xy", "new", "z"]), min_size=1, max_size=3),
        "attribute": st.lists(st.sampled_from(["z"]), min_size=1, max_size=1),
    },
)


def slow_mask(catalogue: Catalogue, wanted: Filters) -> BoolArray:
    """Item by item, in plain Python."""
    passes = [all(set(values) & set(item.facet(name)) for name, values in wanted.items()) for item in catalogue.items]
    mask = np.array(passes, np.bool_)
    return mask if catalogue.in_stock is None else mask & catalogue.in_stock


def grown(rng: np.random.Generator, gone: set[int], n_new: int) -> Catalogue:
    """Sixty exported items and some that came later; `gone` are out of stock."""
    exported = random_catalogue(rng, N)
    late = [CatalogueItem(f"n{n}", category=("a", "late")[: n % 3], brand=("x", "new")[n % 2]) for n in range(n_new)]
    return exported.updated(late, sorted(gone))


@given(seed=st.integers(0, 9), gone=st.sets(st.integers(0, N - 1)), n_new=st.integers(0, 5), wanted=filters)
@settings(max_examples=60, deadline=None)
def test_items_pass_one_by_one_as_they_pass_a_mask(seed: int, gone: set[int], n_new: int, wanted: Filters) -> None:
    catalogue = grown(np.random.default_rng(seed), gone, n_new)
    real = np.array([at for at, item_id in enumerate(catalogue.item_ids) if item_id], np.int64)
    found, expected = catalogue.filter(wanted), slow_mask(catalogue, wanted)
    np.testing.assert_array_equal(found[real], expected[real])
    mask = catalogue.allowed({name: list(values) for name, values in found.values.items()})
    if not found.nothing and mask is not None:
        np.testing.assert_array_equal(mask[real], expected[real])
    assert found.nothing == any(
        not any(set(values) & set(item.facet(name)) for item in catalogue.items) for name, values in wanted.items()
    )
    if (few := found.few()) is not None:
        assert few.tolist() == [item for item in real.tolist() if expected[item]]


@pytest.mark.parametrize("few", [item_filters._FEW, 0], ids=["from the items that match", "from the popular items"])
def test_the_rungs_below_the_model_list_the_same_with_and_without_a_mask(
    few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(item_filters, "_FEW", few)
    rng = np.random.default_rng(0)
    neighbour = np.stack([rng.permutation(np.delete(np.arange(N), item))[:8] for item in range(N)]).astype(np.int32)
    item_cf = ItemCF(neighbour, -np.sort(-rng.random((N, 8), np.float32), axis=1))
    below = Fallback(item_cf, Popularity.fit(rng.integers(0, N, 500), N), stand_in={N + 2: 3, N + 3: 4, N + 4: 5})
    for trial in range(40):
        catalogue = grown(rng, set(rng.integers(0, N, trial % 30).tolist()), 3)
        wanted = {"category": rng.choice([*"abcd", "late", "z"], 2).tolist(), "brand": rng.choice([*"xyz"], 2).tolist()}
        excluded, history = np.unique(rng.integers(0, N, 8)), rng.integers(0, N, 5)
        limits = [
            Constraints(allowed, excluded) for allowed in (slow_mask(catalogue, wanted), catalogue.filter(wanted))
        ]
        for lists in (
            [below.by_history(UserHistory.of_items(history), 10, limit) for limit in limits],
            [below.popular(10, limit) for limit in limits],
        ):
            assert lists[0].items.tolist() == lists[1].items.tolist()
            assert lists[0].source == lists[1].source
