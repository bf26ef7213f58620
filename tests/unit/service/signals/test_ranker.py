"""The ranker: weights by name and group, and the sum of the signals, against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.artifact.scorers import neighbour_table
from service.artifact.scorers.item_column import ItemColumn
from service.artifact.scorers.neighbour_table import NeighbourTable
from service.artifact.scorers.own_items import OwnItems
from service.artifact.scorers.ranker_weights import RankerWeights
from service.artifact.scorers.signal_files import SignalPart
from service.signals.item_values import NO_VALUES, ItemValues, weighted_sum
from service.signals.neighbours import NeighbourSignal
from service.signals.own_items import SCALE, OwnItemsSignal
from service.signals.ranker import Ranker
from service.signals.user_history import SEEN_ITEMS, SeenBefore, UserHistory


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
    causes = signal.causes(user(history), np.arange(12))
    assert (causes.log.shape, causes.before.shape) == ((12, len(history)), (12, 0))
    assert causes.log.sum(axis=1).tolist() == pytest.approx([expected.get(item, 0.0) for item in range(12)], rel=1e-5)


def ranker(groups: dict[str, dict[str, float]], seed: int = 3) -> Ranker:
    """Four signals over twelve items, the first and the last with other neighbours for another seed."""
    parts: dict[str, SignalPart] = {
        "item_cf": table(seed, 12, 4, 0.8, 10),
        "walk": table(seed + 1, 12, 3, 1.0, 5),
        "repeat": OwnItems(12, 0.9),
        "popularity": ItemColumn(np.arange(12, dtype=np.float32)),
    }
    return Ranker.of(parts, RankerWeights(tuple(parts), groups))


@given(st.integers(0, 99), histories, st.integers(-3, 3), st.integers(-3, 3))
def test_the_users_score_is_the_weighted_sum_at_every_size_of_catalogue(
    seed: int, history: list[int], a: int, b: int
) -> None:
    ranked = ranker({"default": {"item_cf": float(a), "walk": float(b), "repeat": 1.0}}, seed)
    found = ranked.user(user(history))
    every = np.arange(12, dtype=np.int64)
    parts = [ranked.signal(name, user(history)).of(every).astype(np.float64) for name in ("item_cf", "walk", "repeat")]
    assert found.of(every).tolist() == (a * parts[0] + b * parts[1] + parts[2]).astype(np.float32).tolist()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbour_table, "_DENSE_ITEMS", 0)
        again = ranked.user(user(history))
    assert (again.items.tolist(), again.values.tolist()) == (found.items.tolist(), found.values.tolist())


@given(st.lists(st.tuples(st.integers(-1, 13), st.integers(0, 3)), max_size=12), st.integers(0, 12))
def test_own_items_count_wherever_the_log_begins(events: list[tuple[int, int]], kept: int) -> None:
    """Events of one item each second, so that all times differ."""
    items = np.array([item for item, _ in events], np.int64)
    times = np.cumsum([1000 * (1 + gap) for _, gap in events]).astype(np.int64)
    signal = OwnItemsSignal("repeat", OwnItems(12, 0.9))
    whole = signal.values(UserHistory.of(items, times, len(items)))
    cut = UserHistory.of(items, times, kept)
    found = signal.values(cut)
    assert (found.items.tolist(), found.values.tolist()) == (whole.items.tolist(), whole.values.tolist())
    last = {item: place for place, item in enumerate(items.tolist())}
    scores = {
        item: items.tolist().count(item) ** 0.5 * 0.9 ** sum(other > place for other in last.values())
        for item, place in last.items()
    }
    top = max((score for item, score in scores.items() if 0 <= item < 12), default=1)
    assert found.items.tolist() == sorted(item for item in scores if 0 <= item < 12)
    assert found.values.tolist() == pytest.approx([scores[item] / top for item in found.items.tolist()])
    causes = signal.causes(cut, found.items)
    assert (causes.log.shape[1], causes.before.shape[1]) == (len(cut), len(cut.before))
    assert (causes.log.sum(axis=1) + causes.before.sum(axis=1)).tolist() == pytest.approx(found.values.tolist())


@given(st.lists(st.integers(-1, 13), max_size=12), st.integers(0, 12))
def test_own_items_with_rates_of_repurchase_are_ordered_by_their_log_odds(items: list[int], kept: int) -> None:
    rates = np.linspace(0.05, 1, 12, dtype=np.float32)
    signal = OwnItemsSignal("repurchase", OwnItems(12, 0.9, rates))
    times = 1000 * np.arange(len(items), dtype=np.int64)
    cut = UserHistory.of(np.array(items, np.int64), times, kept)
    found = signal.values(cut)
    last = {item: place for place, item in enumerate(items)}
    logs = {
        item: math.log(items.count(item) * rates[item]) + math.log(0.9) * sum(place < other for other in last.values())
        for item, place in last.items()
        if 0 <= item < 12
    }
    mean = sum(logs.values()) / len(logs) if logs else 0.0
    assert found.items.tolist() == sorted(logs)
    assert found.values.tolist() == pytest.approx([(logs[item] - mean) / SCALE for item in sorted(logs)], abs=1e-6)
    causes = signal.causes(cut, found.items)
    each = causes.log.sum(axis=1) + causes.before.sum(axis=1)
    assert each.tolist() == pytest.approx(found.values.tolist(), abs=1e-6)


def test_without_learned_weights_the_network_ranks_alone() -> None:
    ranked = ranker({"default": {"path": 0.75, "dense": 0.25}})
    assert ranked.network() == (0.75, 0.25)
    assert not ranked.uses_history()
    assert ranked.user(user([1, 2, 3])) is NO_VALUES
    assert not ranked.bias().any()
    below = ranked.without_network()
    assert below.network() == (0, 0)
    assert below.uses_history() and len(below.user(user([1, 2, 3])))


def test_a_segment_without_weights_of_its_own_takes_the_default() -> None:
    ranked = ranker({"default": {"path": 1.0, "popularity": 2.0}, "warm": {"path": 0.5, "dense": 0.5}})
    assert [ranked.group(name) for name in ("warm", "cold", "default")] == [1, 0, 0]
    assert ranked.bias().tolist() == [2 * item for item in range(12)]
    assert ranked.bias(1).tolist() == [0] * 12
    assert ranked.network(1) == (0.5, 0.5)


def test_new_items_have_the_value_of_their_stand_in_and_count_as_it() -> None:
    old = ranker({"default": {"item_cf": 1.0, "repeat": 0.5}})
    new = old.over({14: 5, 16: 2, 15: 5})
    events = [1, 14, 2, 16]
    found, like = new.user(user(events)), old.user(user([1, 5, 2, 2]))
    assert found.items.tolist() == sorted(set(found.items.tolist()))
    exported = found.items < 12
    assert found.items[exported].tolist() == like.items.tolist()
    assert found.values[exported].tolist() == like.values.tolist()
    stood = np.array([5, 5, 2], np.int64)
    assert found.of(np.array([14, 15, 16], np.int64)).tolist() == like.of(stood).tolist()
    causes = new.causes("item_cf", user(events), np.array([15]))
    value = float(old.signal("item_cf", user([1, 5, 2, 2])).of(np.array([5], np.int64))[0])
    assert float(causes.log.sum()) == pytest.approx(value, rel=1e-5)
    assert new.over({}).stand_ins is None
    with pytest.raises(KeyError):
        new.signal("magic", user(events))


def test_values_of_items_that_have_none_are_0() -> None:
    values = ItemValues(np.array([2, 5], np.int64), np.array([0.5, 1], np.float32))
    assert values.of(np.array([5, 0, 2, 9], np.int64)).tolist() == [1, 0, 0.5, 0]
    assert weighted_sum([(0.0, values), (1.0, NO_VALUES)], 10) is NO_VALUES


def test_the_record_of_seen_items_is_the_same_in_every_order_of_arrival() -> None:
    items, times = np.array([3, 1, 3, 2, 1], np.int64), np.array([1500, 1900, 5000, 9000, 1001], np.int64)
    order = np.array([4, 2, 0, 3, 1])
    one, other = SeenBefore.of(items, times), SeenBefore.of(items[order], times[order])
    for record in (one, other):
        assert record.items.tolist() == [1, 3, 2]
        assert record.counts.tolist() == [2, 2, 1]
        assert record.last_ms.tolist() == [1000, 5000, 9000]
    assert len(SeenBefore.of(np.arange(1500), np.arange(1500) * 1000)) == SEEN_ITEMS
