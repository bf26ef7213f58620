"""The ranker: weights by name and group, and the sum of the signals, against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.artifact import neighbour_table
from service.artifact.array_types import FloatArray
from service.artifact.neighbour_table import NeighbourTable
from service.signals.item_values import NO_VALUES, ItemValues, weighted_sum
from service.signals.neighbours import NeighbourSignal
from service.signals.ranker import Ranker
from service.signals.user_history import UserHistory


class Fixed:
    """An item signal with given values."""

    def __init__(self, name: str, values: list[float]) -> None:
        self.name = name
        self.values: FloatArray = np.array(values, np.float32)


def table(seed: int, n_items: int, width: int, decay: float, horizon: int) -> NeighbourTable:
    rng = np.random.default_rng(seed)
    neighbour = np.repeat(np.arange(n_items, dtype=np.int32)[:, None], width, axis=1)
    similarity = np.zeros((n_items, width), np.float32)
    for item in range(n_items):
        others = rng.permutation(np.delete(np.arange(n_items), item))[: int(rng.integers(0, width + 1))]
        neighbour[item, : len(others)] = others
        similarity[item, : len(others)] = -np.sort(-rng.random(len(others), np.float32) - 0.01)
    return NeighbourTable(neighbour, similarity, decay, horizon)


def slow_values(given_: NeighbourTable, history: list[int]) -> dict[int, float]:
    """The formula, event by event and neighbour by neighbour."""
    sums: dict[int, float] = {}
    for age, event in enumerate(reversed(history[-given_.horizon :])):
        if 0 <= event < given_.n_items:
            for item, similarity in zip(
                given_.neighbour[event].tolist(), given_.similarity[event].tolist(), strict=True
            ):
                sums[item] = sums.get(item, 0.0) + given_.decay**age * similarity
    top = max(sums.values(), default=0.0)
    return {item: total / top for item, total in sums.items() if total > 0}


histories = st.lists(st.integers(-1, 13), max_size=14)


def user(history: list[int]) -> UserHistory:
    return UserHistory(np.array(history, np.int64), np.arange(len(history), dtype=np.int64))


@given(st.integers(0, 99), histories, st.sampled_from([1.0, 0.8, 0.5]), st.integers(1, 12))
def test_neighbour_values_are_the_formula_and_their_causes_add_up(
    seed: int, history: list[int], decay: float, horizon: int
) -> None:
    signal = NeighbourSignal("item_cf", table(seed, 12, 4, decay, horizon))
    found = signal.values(user(history))
    expected = slow_values(signal.table, history)
    assert found.items.tolist() == sorted(expected)
    assert found.values.tolist() == pytest.approx([expected[i] for i in sorted(expected)], rel=1e-6)
    assert found.values.max(initial=1) == 1
    for item in range(12):
        causes = signal.causes(user(history), item)
        assert len(causes.log) == len(history)
        assert float(causes.log.sum()) == pytest.approx(expected.get(item, 0.0), rel=1e-5)


@given(st.integers(0, 99), histories, st.integers(-3, 3), st.integers(-3, 3))
def test_the_users_score_is_the_weighted_sum_at_every_size_of_catalogue(
    seed: int, history: list[int], a: int, b: int
) -> None:
    signals = [
        NeighbourSignal("one", table(seed, 12, 4, 0.8, 10)),
        NeighbourSignal("two", table(seed + 1, 12, 3, 1.0, 5)),
    ]
    ranker = Ranker(12, signals, [], {"default": {"one": float(a), "two": float(b)}})
    found = ranker.user(user(history))
    parts = [signal.values(user(history)) for signal in signals]
    every = np.arange(12, dtype=np.int64)
    expected = a * parts[0].of(every).astype(np.float64) + b * parts[1].of(every).astype(np.float64)
    assert found.of(every).tolist() == expected.astype(np.float32).tolist()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbour_table, "_DENSE_ITEMS", 0)
        again = ranker.user(user(history))
    assert (again.items.tolist(), again.values.tolist()) == (found.items.tolist(), found.values.tolist())


def test_without_learned_weights_the_network_ranks_alone() -> None:
    signal = NeighbourSignal("item_cf", table(3, 12, 4, 0.8, 10))
    ranker = Ranker.of_blend(12, [signal], [Fixed("popularity", [1.0] * 12)], blend=0.25)
    assert ranker.network() == (0.75, 0.25)
    assert ranker.user(user([1, 2, 3])) is NO_VALUES
    assert not ranker.bias().any()
    below = ranker.without_network()
    assert below.network() == (0, 0)
    assert len(below.user(user([1, 2, 3])))


def test_a_segment_without_weights_of_its_own_takes_the_default() -> None:
    groups = {"default": {"path": 1.0, "popularity": 2.0}, "warm": {"path": 0.5, "dense": 0.5}}
    ranker = Ranker(3, [], [Fixed("popularity", [1, 2, 3])], groups)
    assert [ranker.group(name) for name in ("warm", "cold", "default")] == [1, 0, 0]
    assert ranker.bias().tolist() == [2, 4, 6]
    assert ranker.bias(1).tolist() == [0, 0, 0]
    assert ranker.network(1) == (0.5, 0.5)


def test_weights_of_unknown_signals_are_refused() -> None:
    with pytest.raises(ValueError, match="weights of magic, but no such signals"):
        Ranker(3, [], [], {"default": {"magic": 1.0}})
    with pytest.raises(ValueError, match="the first group of weights must be 'default'"):
        Ranker(3, [], [], {"warm": {}})


def test_values_of_items_that_have_none_are_0() -> None:
    values = ItemValues(np.array([2, 5], np.int64), np.array([0.5, 1], np.float32))
    assert values.of(np.array([5, 0, 2, 9], np.int64)).tolist() == [1, 0, 0.5, 0]
    assert weighted_sum([(0.0, values), (1.0, NO_VALUES)], 10) is NO_VALUES
