"""What stands in for items without events, and what signals make of it, against loops."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.data.dataset import Dataset, Sequences, sequences
from model.signals import cold_items, imputation, neighbour_rows
from model.signals.cold_items import NEIGHBOURS, ColdItems, find
from model.signals.data import SignalData
from model.signals.imputation import imputed
from model.signals.registry import OF_CONTENT, SIGNALS, fit_signals
from service.artifact.array_types import FloatArray
from service.artifact.scorers.item_cf import ItemCF
from service.artifact.scorers.item_column import ItemColumn
from service.artifact.scorers.neighbour_table import NeighbourTable
from service.artifact.scorers.own_items import OwnItems
from service.artifact.scorers.popularity import Popularity
from tests.support.data_builders import tiny_dataset

N = 12
DATASET = tiny_dataset(users=25, items=N)
Shares = dict[int, dict[int, float]]


def without_events(dataset: Dataset, cold: Sequence[int]) -> Sequences:
    """The log of a data set without the events of some items."""
    log = sequences(dataset)
    keep = ~np.isin(log.item, np.array(cold, np.int64))
    kept = np.concatenate([np.zeros(1, np.int64), np.cumsum(keep)])
    return replace(log, offsets=kept[log.offsets], item=log.item[keep], type=log.type[keep], time_ms=log.time_ms[keep])


def features_of(dataset: Dataset, item: int) -> set[str]:
    row = dataset.items.row(item, named=True)
    return {*(f"a{x}" for x in row["attributes"]), *(f"c{x}" for x in row["category"]), f"b{row['brand']}"}


def by_features(dataset: Dataset, one: int, other: int) -> float:
    of = [features_of(dataset, item) for item in range(N)]
    weight = {name: math.log(N / sum(name in row for row in of)) for name in set().union(*of)}

    def norm(item: int) -> float:
        return math.sqrt(sum(weight[name] ** 2 for name in of[item]))

    return sum(weight[name] ** 2 for name in of[one] & of[other]) / norm(one) / norm(other)


def slow_shares(dataset: Dataset, cold: Sequence[int], texts: FloatArray | None) -> Shares:
    """p of every cold item: cosines with its nearest items, divided by their sum."""
    warm = [item for item in range(N) if item not in cold]
    shares: Shares = {}
    for item in cold:
        cosine = dict.fromkeys(warm, 0.0)
        if texts is not None and texts[item].any():
            length = np.linalg.norm(texts, axis=1)
            cosine = {w: float(texts[item] @ texts[w] / length[item] / length[w]) for w in warm if length[w]}
        if max(cosine.values()) <= 0:  # no text, or none that resembles it
            cosine = {w: by_features(dataset, item, w) for w in warm}
        least = sorted(cosine.values())[-NEIGHBOURS:][0]
        nearest = [w for w in cosine if cosine[w] > 0 and cosine[w] >= least - 1e-6]
        if nearest:
            total = sum(cosine[w] for w in nearest)
            shares[item] = {w: cosine[w] / total for w in nearest}
    return shares


def shares_of(cold: ColdItems) -> Shares:
    dense = cold.share.toarray()
    return {
        item: {w: float(p) for w, p in enumerate(dense[:, column]) if p}
        for column, item in enumerate(cold.items.tolist())
    }


cold_ = st.lists(st.integers(0, N - 1), unique=True, min_size=1, max_size=5).map(sorted)


@given(cold_, st.booleans(), st.integers(0, 99))
@settings(max_examples=25)
def test_the_nearest_items_with_events_stand_in_for_an_item_without(cold: list[int], by_text: bool, seed: int) -> None:
    texts = np.random.default_rng(seed).normal(size=(N, 3)).astype(np.float32) if by_text else None
    if texts is not None:
        texts[cold[0]] = 0  # without a text: its attributes are compared
    found = find(without_events(DATASET, cold), DATASET, texts)
    expected = slow_shares(DATASET, cold, texts)
    assert found.without_content == len(cold) - len(expected)
    got = shares_of(found)
    assert list(got) == list(expected)
    for item, shares in expected.items():
        assert sum(got[item].values()) == pytest.approx(1)
        assert got[item] == pytest.approx(shares, abs=1e-5)


def slow_table(table: NeighbourTable, shares: Shares) -> dict[tuple[int, int], float]:
    """All values of a table with rows and columns of cold items; the rows of cold items are as long as others."""
    value: dict[tuple[int, int], float] = defaultdict(float)
    for row in range(N):
        for other, similarity in zip(table.neighbour[row].tolist(), table.similarity[row].tolist(), strict=True):
            value[row, other] += similarity
    for item, share in shares.items():
        mean = {other: sum(p * value[w, other] for w, p in share.items()) for other in range(N) if other != item}
        kept = sorted(mean, key=lambda other: (-np.float32(mean[other]), other))[: table.neighbour.shape[1]]
        for other in range(N):
            value[item, other] = mean[other] if other in kept else 0.0
    for item, share in shares.items():
        for row in range(N):
            value[row, item] = sum(p * value[row, w] for w, p in share.items()) if row != item else 0.0
    return {pair: one for pair, one in value.items() if one > 0}


def values_of(table: NeighbourTable) -> dict[tuple[int, int], float]:
    rows, places = np.nonzero(table.similarity)
    pairs = list(zip(rows.tolist(), table.neighbour[rows, places].tolist(), strict=True))
    assert len(set(pairs)) == len(pairs)
    return dict(zip(pairs, table.similarity[rows, places].tolist(), strict=True))


def fitted_without(cold: Sequence[int]) -> tuple[NeighbourTable, ColdItems]:
    train = without_events(DATASET, cold)
    table = SignalData(train, DATASET, NO_ITEM_CF, Popularity.fit(train.item, N)).transitions
    assert table is not None
    return table, find(train, DATASET, None)


NO_ITEM_CF = ItemCF(np.arange(N, dtype=np.int32)[:, None], np.zeros((N, 1), np.float32))


@given(cold_)
@settings(max_examples=15)
def test_cold_items_get_the_mean_row_and_column_of_what_stands_in_for_them(cold: list[int]) -> None:
    table, found = fitted_without(cold)
    got = imputed(table, found)
    assert isinstance(got, NeighbourTable)
    assert (got.decay, got.horizon) == (table.decay, table.horizon)
    assert values_of(got) == pytest.approx(slow_table(table, shares_of(found)), rel=1e-5)


def test_rows_keep_the_neighbours_they_had_and_few_cold_ones_beside_them(monkeypatch: pytest.MonkeyPatch) -> None:
    cold = [1, 4, 7, 10]
    table, found = fitted_without(cold)
    narrow = NeighbourTable(table.neighbour[:, :2].copy(), table.similarity[:, :2].copy())
    monkeypatch.setattr(imputation, "COLD_NEIGHBOURS", 1)
    got = values_of(imputed(narrow, found))  # type: ignore[arg-type]
    whole = slow_table(narrow, shares_of(found))
    for row in range(N):
        if row not in cold:
            assert {w: got.get((row, w), 0) for w in range(N) if w not in cold} == {
                w: values_of(narrow).get((row, w), 0) for w in range(N) if w not in cold
            }
            of_cold = [got[row, c] for c in cold if (row, c) in got]
            best = max((whole.get((row, c), 0.0) for c in cold), default=0)
            assert of_cold == pytest.approx([best] if best else [])
        assert sum(one == row for one, _ in got) <= 3
    monkeypatch.setattr(neighbour_rows, "_VALUES_AT_ONCE", 17)
    assert values_of(imputed(narrow, found)) == got  # type: ignore[arg-type]


@given(cold_, st.lists(st.integers(0, N - 1), max_size=12))
@settings(max_examples=25)
def test_scores_of_items_with_events_stay_the_same_and_no_cold_item_is_above_them(
    cold: list[int], history: list[int]
) -> None:
    table, found = fitted_without(cold)
    seen = np.array([item for item in history if item not in cold], np.int64)
    before, after = table.scores(seen), imputed(table, found).scores(seen)  # type: ignore[union-attr]
    warm = np.setdiff1d(np.arange(N), cold)
    assert (after[warm] == before[warm]).all()
    assert after.max() <= before.max() * (1 + 1e-6)


def test_values_of_items_are_means_and_popular_lists_are_of_the_log_alone(tmp_path: Path) -> None:
    cold = [2, 3]
    train = without_events(DATASET, cold)
    found, popular = find(train, DATASET, None), Popularity.fit(train.item, N)
    counts = imputed(popular, found)
    assert isinstance(counts, Popularity)
    log_count = np.log1p(np.bincount(train.item, minlength=N))
    trend = imputed(ItemColumn(np.arange(N, dtype=np.float32)), found)
    assert isinstance(trend, ItemColumn)
    for item, shares in shares_of(found).items():
        assert counts.log_counts()[item] == pytest.approx(sum(p * log_count[w] for w, p in shares.items()), rel=1e-5)
        assert trend.values[item] == pytest.approx(sum(p * w for w, p in shares.items()), rel=1e-5)
    warm = np.setdiff1d(np.arange(N), cold)
    assert counts.log_counts()[warm].tolist() == popular.log_counts()[warm].tolist()
    counts.save(tmp_path / "popular.npz")
    loaded = Popularity.load(tmp_path / "popular.npz")
    assert loaded.log_counts().tolist() == counts.log_counts().tolist()
    assert loaded.recommend(N)[0].tolist() == popular.recommend(N)[0].tolist()
    own = OwnItems(N, 0.9)
    assert imputed(own, found) is own


def test_a_vector_is_the_mean_direction_at_the_mean_length() -> None:
    found = find(without_events(DATASET, [0, 5]), DATASET, None)
    table = np.random.default_rng(1).normal(size=(N, 4)).astype(np.float32)
    for vector, (item, shares) in zip(found.vectors(table), shares_of(found).items(), strict=True):
        mean = sum(p * table[w] for w, p in shares.items())
        length = sum(p * float(np.linalg.norm(table[w])) for w, p in shares.items())
        own = table[item] / np.linalg.norm(table[item])
        assert vector == pytest.approx((mean / np.linalg.norm(mean) + cold_items._OWN * own) * length, rel=1e-4)
    opposite, (one, other) = np.zeros((N, 4), np.float32), list(shares_of(found)[0].items())[:2]
    opposite[one[0], 0], opposite[other[0], 0] = 1 / one[1], -1 / other[1]
    assert np.linalg.norm(found.vectors(opposite)[0]) < 1e-3, "vectors that cancel each other out have no direction"


def test_of_many_items_that_are_equally_near_some_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    train, texts = without_events(DATASET, [4]), np.ones((N, 2), np.float32)
    assert len(shares_of(find(train, DATASET, texts))[4]) == N - 1
    monkeypatch.setattr(cold_items, "EQUALS_MAX", 6)
    some = shares_of(find(train, DATASET, texts))[4]
    assert list(some.values()) == pytest.approx([1 / 6] * 6)
    assert min(some) == 0 and max(some) == N - 1


def test_too_many_texts_are_left_for_attributes_and_the_report_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    train, texts = without_events(DATASET, [0, 5]), np.eye(N, dtype=np.float32)
    monkeypatch.setattr(cold_items, "TEXT_PAIRS_MAX", 19)
    found = find(train, DATASET, texts)
    assert shares_of(found) == shares_of(find(train, DATASET, None))
    assert "too many to compare by text" in found.to_json()["notes"][0]
    bare = replace(DATASET, items=DATASET.items.clear())
    nothing = find(train, bare, None)
    assert len(nothing) == 0 and nothing.without_content == 2
    assert "nothing speaks for them" in nothing.notes()[0]


def test_every_signal_of_events_knows_cold_items() -> None:
    train = without_events(DATASET, [4])
    table = SignalData(train, DATASET, NO_ITEM_CF, Popularity.fit(train.item, N)).transitions
    assert table is not None
    item_cf = ItemCF(table.neighbour, table.similarity)
    texts = np.ones((N, 2), np.float32)
    fitted = fit_signals(SignalData(train, DATASET, item_cf, Popularity.fit(train.item, N), texts, vectors=texts))
    assert set(SIGNALS) - set(fitted) <= {"trend"}
    assert fitted.keys() >= OF_CONTENT
    assert isinstance(fitted["item_cf"], ItemCF)
    for name, part in fitted.items():
        if isinstance(part, NeighbourTable):
            pairs = values_of(part)
            assert any(other == 4 for _, other in pairs), name
            assert any(row == 4 for row, _ in pairs), name
    mark = fitted["cold"]
    assert isinstance(mark, ItemColumn) and np.flatnonzero(mark.values).tolist() == [4]
