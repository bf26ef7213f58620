"""The paired bootstrap: certain where it must be, equal to resampling users one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from model.evaluation.bootstrap import holm, paired_bootstrap
from service.artifact.array_types import Float64Array


def test_of_equal_systems_finds_no_difference() -> None:
    values = np.random.default_rng(0).random(50)
    found = paired_bootstrap(values, values.copy())
    assert (found.difference, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_of_a_constant_gain_is_certain() -> None:
    values = np.random.default_rng(0).integers(0, 2, 50).astype(np.float64)
    found = paired_bootstrap(values + 0.5, values, samples=999)
    assert (found.difference, found.low, found.high) == (0.5, 0.5, 0.5)
    assert found.p_value == 2 / 1000


def test_is_repeatable_and_its_seed_matters() -> None:
    rng = np.random.default_rng(1)
    ours, theirs = rng.random(40), rng.random(40)
    assert paired_bootstrap(ours, theirs, seed=1) == paired_bootstrap(ours, theirs, seed=1)
    assert paired_bootstrap(ours, theirs, seed=1) != paired_bootstrap(ours, theirs, seed=2)


def test_interval_equals_drawing_users_one_by_one() -> None:
    rng = np.random.default_rng(3)
    ours, theirs = rng.integers(0, 3, 200) / 2.0, rng.integers(0, 3, 200) / 2.0
    found = paired_bootstrap(ours, theirs, samples=20_000)
    users = rng.integers(0, 200, (20_000, 200))
    low, high = np.quantile((ours - theirs)[users].mean(axis=1), [0.025, 0.975])
    assert found.low == pytest.approx(low, abs=0.01)
    assert found.high == pytest.approx(high, abs=0.01)


def test_users_of_one_cluster_are_drawn_together() -> None:
    rng = np.random.default_rng(4)
    cluster = rng.integers(0, 25, 200)
    ours = (rng.random(25)[cluster] + rng.random(200) > 1).astype(np.float64)
    found = paired_bootstrap(ours, np.zeros(200), samples=20_000, cluster=cluster)
    members = [np.flatnonzero(cluster == one) for one in np.unique(cluster)]
    drawn = rng.integers(0, len(members), (20_000, len(members)))
    means = [ours[np.concatenate([members[one] for one in row])].mean() for row in drawn]
    low, high = np.quantile(means, [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.015)
    alone = paired_bootstrap(ours, np.zeros(200))
    assert found.high - found.low > 1.3 * (alone.high - alone.low)
    assert found.difference == alone.difference
    assert paired_bootstrap(ours, np.zeros(200), cluster=np.arange(200)) == alone


@given(hnp.arrays(np.float64, st.integers(1, 30), elements=st.sampled_from([0.0, 0.5, 1.0])), st.integers(0, 9))
def test_swapping_the_systems_negates_the_difference(ours: Float64Array, seed: int) -> None:
    theirs = np.random.default_rng(seed).permutation(ours)
    forth = paired_bootstrap(ours, theirs, samples=200, seed=seed)
    assert paired_bootstrap(theirs, ours, samples=200, seed=seed).difference == -forth.difference
    assert 0 < forth.p_value <= 1


@pytest.mark.parametrize("theirs", [np.zeros(3), np.zeros(0), np.array([np.nan, 0])])
def test_refuses_what_does_not_pair(theirs: Float64Array) -> None:
    with pytest.raises(ValueError, match=r"users|defined"):
        paired_bootstrap(np.zeros(2), theirs)
    with pytest.raises(ValueError, match="a cluster for each user"):
        paired_bootstrap(np.zeros(2), np.zeros(2), cluster=np.zeros(3, np.int64))


@given(st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=8))
def test_holm_s_correction_is_its_definition(p_values: list[float]) -> None:
    order = sorted(range(len(p_values)), key=lambda at: p_values[at])
    wanted = [
        min(1.0, max((len(order) - j) * p_values[order[j]] for j in range(order.index(at) + 1)))
        for at in range(len(p_values))
    ]
    assert holm(p_values) == pytest.approx(wanted)


@given(st.lists(st.floats(0.0001, 1.0), min_size=1, max_size=8))
def test_holm_s_correction_rejects_what_stepping_down_rejects(values: list[float]) -> None:
    corrected = holm(values)
    for level in (0.01, 0.05, 0.2):
        rejected, order = set(), np.argsort(values, kind="stable")
        for place, at in enumerate(order):
            if not values[at] * (len(values) - place) < level:
                break
            rejected.add(int(at))
        assert {at for at, p in enumerate(corrected) if p < level} == rejected
