"""What each signal is fitted to, against loops over events and pairs of items."""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from model.data.dataset import ITEM_SCHEMA, Dataset, Sequences, sequences
from model.data.split import leave_one_out
from model.signals import content, features, neighbour_rows, repurchase, texts, transition_table, trend, walk
from model.signals.data import SignalData
from model.signals.neighbour_rows import blocks
from model.signals.registry import SIGNALS, fit_signals
from service.artifact.array_types import FloatArray
from service.artifact.scorers.item_cf import ItemCF
from service.artifact.scorers.neighbour_table import NeighbourTable
from service.artifact.scorers.popularity import Popularity
from tests.support.data_builders import tiny_dataset

N = 7
Table = dict[tuple[int, int], float]


def log_of(histories: list[list[int]], times: list[list[int]] | None = None) -> Sequences:
    flat = [item for history in histories for item in history]
    at = [time for row in times for time in row] if times else [0] * len(flat)
    return Sequences(
        user_ids=[f"u{user}" for user in range(len(histories))],
        item_ids=[f"i{item}" for item in range(N)],
        offsets=np.cumsum([0, *map(len, histories)]).astype(np.int64),
        item=np.array(flat, np.int64),
        type=np.zeros(len(flat), np.int64),
        time_ms=np.array(at, np.int64),
        has_time=times is not None,
    )


def data_of(train: Sequences, dataset: Dataset | None = None, vectors: FloatArray | None = None) -> SignalData:
    table = np.repeat(np.arange(train.n_items, dtype=np.int32)[:, None], 1, axis=1)
    item_cf = ItemCF(table, np.zeros(table.shape, np.float32))
    return SignalData(train, dataset or tiny_dataset(), item_cf, Popularity.fit(train.item, train.n_items), vectors)


def values_of(table: NeighbourTable | None) -> Table:
    if table is None:
        return {}
    rows, places = np.nonzero(table.similarity)
    pairs = zip(rows.tolist(), table.neighbour[rows, places].tolist(), strict=True)
    return dict(zip(pairs, table.similarity[rows, places].tolist(), strict=True))


def positive(table: Table) -> Table:
    return {(item, other): value for (item, other), value in table.items() if value > 0 and item != other}


def slow_transitions(histories: list[list[int]]) -> Table:
    count = Counter(itertools.chain(*histories))
    table: Table = defaultdict(float)
    for history in histories:
        for place, item in enumerate(history):
            for distance, other in enumerate(history[place + 1 : place + 11], start=1):
                if other != item:
                    table[item, other] += 1 / distance
    return {(i, j): value / math.sqrt(count[i]) / math.sqrt(count[j]) for (i, j), value in table.items()}


histories_ = st.lists(st.lists(st.integers(0, N - 1), max_size=14), max_size=6)


@given(histories_)
@settings(max_examples=40)
def test_transitions_count_pairs_up_to_ten_places_apart_in_their_direction(histories: list[list[int]]) -> None:
    found = values_of(transition_table.transition_table(log_of(histories)))
    assert found == pytest.approx(positive(slow_transitions(histories)), rel=1e-5)


@given(histories_)
@settings(max_examples=40)
def test_a_walk_is_two_transitions_and_never_leads_back(histories: list[list[int]]) -> None:
    data = data_of(log_of(histories))
    step = values_of(data.transitions)
    product: Table = defaultdict(float)
    for (i, j), first in step.items():
        for (other, k), second in step.items():
            if j == other:
                product[i, k] += first * second
    assert values_of(walk.fit(data)) == pytest.approx(positive(product), rel=1e-5)


@given(st.integers(0, 99), st.integers(1, 5))
@settings(max_examples=40)
def test_a_row_keeps_its_largest_values_and_of_equal_ones_the_lower_items(seed: int, width: int) -> None:
    values = np.random.default_rng(seed).integers(-1, 4, (6, 6)).astype(np.float64)
    rows = neighbour_rows.Rows(6, width)
    rows.add(0, sparse.csr_array(values[:4]))
    rows.add(4, sparse.csr_array(values[4:]))
    expected: Table = {}
    for item, row in enumerate(values.tolist()):
        order = sorted((-value, other) for other, value in enumerate(row) if value > 0 and other != item)
        expected |= {(item, other): -value for value, other in order[:width]}
    assert values_of(rows.table(0.8, 10)) == expected


def test_tables_are_the_same_in_blocks_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = tiny_dataset(users=30, items=40)
    vectors = np.eye(40, 8, dtype=np.float32) + np.float32(0.1)
    data = data_of(leave_one_out(sequences(dataset)).train, dataset, vectors)
    whole = fit_signals(data)
    monkeypatch.setattr(neighbour_rows, "_VALUES_AT_ONCE", 3 * 40)
    monkeypatch.setattr(transition_table, "_EVENTS_AT_ONCE", 17)
    again = fit_signals(replace(data))
    for name in ("transitions", "walk", "content", "texts"):
        one, other = whole[name], again[name]
        assert isinstance(one, NeighbourTable) and isinstance(other, NeighbourTable)
        assert values_of(one) == pytest.approx(values_of(other), rel=1e-6)


def test_a_product_is_never_larger_than_memory_allows() -> None:
    for n in (1, 1000, 100_000, 10_000_000):
        parts = list(itertools.islice(blocks(n, n), 3))
        assert parts[0].start == 0
        assert all(one.stop == other.start for one, other in itertools.pairwise(parts))
        assert all((part.stop - part.start) * n <= max(n, 1 << 24) for part in parts)


names_ = st.lists(st.sampled_from("abcd"), unique=True, max_size=3)
content_ = st.lists(st.tuples(names_, names_, st.sampled_from([None, "x", "y"])), min_size=N, max_size=N)


def items_of(rows: list[tuple[list[str], list[str], str | None]]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "item_id": [f"i{item}" for item in range(N)],
            "title": [None] * N,
            "category": [category for _, category, _ in rows],
            "brand": [brand for _, _, brand in rows],
            "attributes": [attributes for attributes, _, _ in rows],
            "text": [None] * N,
            "price": [None] * N,
        },
        schema=ITEM_SCHEMA,
    )


@given(content_)
@settings(max_examples=40)
def test_content_is_the_cosine_of_features_weighed_by_their_rarity(
    rows: list[tuple[list[str], list[str], str | None]],
) -> None:
    """No item has an event here: items without events are rows and columns like all others."""
    features = [
        {*(f"a{x}" for x in attributes), *(f"c{x}" for x in category), *([f"b{brand}"] if brand else [])}
        for attributes, category, brand in rows
    ]
    count = Counter(itertools.chain(*features))
    weight = {feature: math.log(N / count[feature]) for feature in count}

    def norm(item: int) -> float:
        return math.sqrt(sum(weight[feature] ** 2 for feature in features[item]))

    table = {
        (i, j): sum(weight[f] ** 2 for f in features[i] & features[j]) / norm(i) / norm(j)
        for i, j in itertools.permutations(range(N), 2)
        if norm(i) and norm(j)
    }
    dataset = replace(EMPTY, items=items_of(rows))
    assert values_of(content.fit(data_of(log_of([]), dataset))) == pytest.approx(positive(table), rel=1e-5)


EMPTY = tiny_dataset(users=1)


def test_the_commonest_features_are_left_out_where_they_would_cost_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = tiny_dataset(users=30, items=40)
    data = data_of(leave_one_out(sequences(dataset)).train, dataset)
    every = values_of(content.fit(data))
    monkeypatch.setattr(features, "PAIRS_MAX", 700)
    rare = values_of(content.fit(data))
    assert rare and set(rare) < set(every)
    monkeypatch.setattr(features, "PAIRS_MAX", 0)
    assert content.fit(data) is None


def test_texts_are_compared_by_cosine_and_an_item_without_one_has_no_neighbours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vectors = np.array([[1, 0], [2, 2], [0, 0], [0, 3], [-1, 0]], np.float32)
    train = replace(log_of([]), item_ids=list("abcde"))
    found = values_of(texts.fit(data_of(train, vectors=vectors)))
    half = math.sqrt(0.5)
    assert found == pytest.approx({(0, 1): half, (1, 0): half, (1, 3): half, (3, 1): half})
    assert texts.fit(data_of(train)) is None
    monkeypatch.setattr(texts, "ITEMS_MAX", 4)
    assert texts.fit(data_of(train, vectors=vectors)) is None


def test_trend_compares_the_newest_tenth_with_all_events() -> None:
    histories = [[0] * 18 + [1, 1]]
    found = trend.fit(data_of(log_of(histories, [list(range(20))])))
    assert found is not None
    smooth = trend.SMOOTHING
    expected = [math.log(smooth / (1.8 + smooth)), math.log((2 + smooth) / (0.2 + smooth)), 0, 0, 0, 0, 0]
    assert found.values.tolist() == pytest.approx(expected, rel=1e-5)
    assert trend.fit(data_of(log_of(histories))) is None
    assert trend.fit(data_of(log_of(histories, [[7] * 20]))) is None
    assert trend.fit(data_of(log_of([], [[]]))) is None


@given(st.lists(st.lists(st.integers(0, N - 1), max_size=8), min_size=1, max_size=6))
def test_the_rate_of_repurchase_counts_what_is_taken_beyond_the_first_time(histories: list[list[int]]) -> None:
    fitted = repurchase.fit(data_of(log_of(histories)))
    events = Counter(itertools.chain(*histories))
    again = {item: sum(max(history.count(item) - 1, 0) for history in histories) for item in range(N)}
    if not sum(again.values()):
        assert fitted is None
        return
    assert fitted is not None and fitted.repurchase is not None
    mean = sum(again.values()) / sum(events.values())
    expected = [(again[item] + 20 * mean) / (events[item] + 20) for item in range(N)]
    assert fitted.repurchase.tolist() == pytest.approx(expected, rel=1e-5)


def test_every_signal_is_fitted_where_the_data_have_something_for_it() -> None:
    dataset = tiny_dataset()
    train = leave_one_out(sequences(dataset)).train
    train = replace(train, item=np.where(train.item == 29, 28, train.item))  # one item has no event
    data = replace(data_of(train, dataset, np.ones((30, 4), np.float32)), vectors=np.ones((30, 2), np.float32))
    fitted = fit_signals(data)
    assert list(fitted) == list(SIGNALS)
    assert {part.n_items for part in fitted.values()} == {30}
    bare = tiny_dataset(has_time=False)
    nothing: dict[str, pl.DataType] = {
        "category": pl.List(pl.String),
        "attributes": pl.List(pl.String),
        "brand": pl.String(),
    }
    items = bare.items.with_columns(pl.lit(None, kind).alias(name) for name, kind in nothing.items())
    without = fit_signals(data_of(leave_one_out(sequences(bare)).train, replace(bare, items=items)))
    assert set(SIGNALS) - set(without) == {"content", "texts", "vectors", "trend", "cold"}
