"""Item-CF and popularity, against hand-computed values and a reference that looks at every item."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.artifact.array_types import BoolArray, FloatArray, IntArray
from service.artifact.arrays import save_arrays
from service.artifact.scorers import neighbour_table
from service.artifact.scorers.item_cf import ItemCF
from service.artifact.scorers.popularity import Popularity
from service.artifact.scorers.scorer_files import FORMAT_VERSION, ScorerFileError


def ints(*values: int) -> IntArray:
    return np.array(values, np.int64)


def example() -> ItemCF:
    neighbour = np.array([[1, 2], [2, 0], [1, 2], [3, 3]], np.int32)
    similarity = np.array([[0.5, 0.25], [1.0, 0.5], [1.0, 0.0], [0.0, 0.0]], np.float32)
    return ItemCF(neighbour, similarity, decay=0.5, horizon=3)


def random_item_cf(seed: int, n_items: int, n_neighbours: int) -> ItemCF:
    """Similarities are few sixteenths, so that ties are common and every sum is exact."""
    rng = np.random.default_rng(seed)
    neighbour = np.zeros((n_items, n_neighbours), np.int32)
    for item in range(n_items):
        others = np.delete(np.arange(n_items), item)
        neighbour[item] = rng.permutation(np.resize(others, max(n_neighbours, len(others))))[:n_neighbours]
    similarity = -np.sort(-rng.integers(0, 4, neighbour.shape) / 16, axis=1).astype(np.float32)
    return ItemCF(neighbour, similarity, decay=0.5, horizon=4)


def slow_scores(model: ItemCF, history: IntArray) -> FloatArray:
    scores = np.zeros(model.n_items)
    for age, item in enumerate(reversed(history[-model.horizon :].tolist())):
        if 0 <= item < model.n_items:
            for other, similarity in zip(model.neighbour[item], model.similarity[item], strict=True):
                scores[other] += model.decay**age * float(similarity)
    return scores.astype(np.float32)


def slow_list(scores: FloatArray, k: int, allowed: BoolArray | None, excluded: IntArray) -> list[int]:
    items = [i for i in range(len(scores)) if scores[i] > 0 and i not in excluded and (allowed is None or allowed[i])]
    return sorted(items, key=lambda i: (-scores[i], i))[:k]


@st.composite
def requests(draw: st.DrawFn) -> tuple[int, int, IntArray, int, BoolArray | None, IntArray]:
    n_items = draw(st.integers(2, 30))
    item = st.integers(0, n_items)  # one past the catalogue: an unknown item
    history = np.array(draw(st.lists(item, max_size=8)), np.int64)
    excluded = np.array(draw(st.lists(item, max_size=8)), np.int64)
    mask = draw(st.none() | st.lists(st.booleans(), min_size=n_items, max_size=n_items))
    allowed = None if mask is None else np.array(mask, np.bool_)
    return draw(st.integers(0, 99)), n_items, history, draw(st.integers(0, 35)), allowed, excluded


def test_scores_are_the_recency_weighted_sums() -> None:
    # newest 0 (weight 1): 1 → .5, 2 → .25; older 1 (weight .5): 2 → .5, 0 → .25
    assert example().scores(ints(1, 0)).tolist() == [0.25, 0.5, 0.75, 0.0]


def test_unknown_item_scores_nothing_but_keeps_its_age() -> None:
    assert example().scores(ints(0, 4)).tolist() == [0.0, 0.25, 0.125, 0.0]


def test_only_the_last_horizon_events_count() -> None:
    model = example()
    assert model.scores(ints(1, 3, 3, 3)).tolist() == [0.0] * 4
    assert model.scores(ints(1, 3, 3)).tolist() == [0.125, 0.0, 0.25, 0.0]


def test_empty_history_recommends_nothing() -> None:
    items, scores = example().recommend(ints(), 3)
    assert len(items) == 0 and len(scores) == 0


def test_equal_scores_are_ordered_by_the_lower_index() -> None:
    neighbour = np.array([[3, 2, 1], [1, 1, 1], [2, 2, 2], [3, 3, 3]], np.int32)
    similarity = np.array([[0.5, 0.5, 0.5], *[[0, 0, 0]] * 3], np.float32)
    items, _ = ItemCF(neighbour, similarity).recommend(ints(0), 2)
    assert items.tolist() == [1, 2]


@given(requests())
def test_recommend_equals_the_slow_reference(
    request_: tuple[int, int, IntArray, int, BoolArray | None, IntArray],
) -> None:
    seed, n_items, history, k, allowed, excluded = request_
    model = random_item_cf(seed, n_items, 5)
    expected = slow_scores(model, history)
    items, scores = model.recommend(history, k, allowed, excluded)
    assert model.scores(history).tolist() == expected.tolist()
    assert items.tolist() == slow_list(expected, k, allowed, excluded)
    assert scores.tolist() == expected[items].tolist()


@given(requests())
def test_sparse_and_dense_summation_give_the_same_bits(
    request_: tuple[int, int, IntArray, int, BoolArray | None, IntArray],
) -> None:
    seed, n_items, history, k, allowed, excluded = request_
    rng = np.random.default_rng(seed)
    ragged = random_item_cf(seed, n_items, 5)
    noise = rng.random(ragged.similarity.shape, np.float32)
    model = ItemCF(ragged.neighbour, -np.sort(-noise, axis=1), decay=0.9, horizon=8)
    dense = model.recommend(history, k, allowed, excluded)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbour_table, "_DENSE_ITEMS", 0)
        sparse = model.recommend(history, k, allowed, excluded)
    assert [part.tolist() for part in dense] == [part.tolist() for part in sparse]


@given(requests())
def test_k_items_whenever_k_are_allowed_once_filled_with_popularity(
    request_: tuple[int, int, IntArray, int, BoolArray | None, IntArray],
) -> None:
    seed, n_items, history, k, allowed, excluded = request_
    model = random_item_cf(seed, n_items, 3)
    popularity = Popularity.fit(np.random.default_rng(seed).integers(0, n_items, 20), n_items)
    items, scores = popularity.fill(*model.recommend(history, k, allowed, excluded), k, allowed, excluded)
    possible = [i for i in range(n_items) if i not in excluded and (allowed is None or allowed[i])]
    assert len(items) == len(scores) == min(k, len(possible))
    assert len(set(items.tolist())) == len(items)
    assert set(items.tolist()) <= set(possible)
    assert (np.diff(scores) <= 0).all()


@given(st.integers(0, 10**6), st.sampled_from([0.01, 0.1, 0.9]), st.integers(0, 40), st.integers(0, 150))
def test_popularity_equals_the_slow_reference(seed: int, density: float, k: int, n_excluded: int) -> None:
    rng, n_items = np.random.default_rng(seed), 300
    popularity = Popularity.fit(rng.integers(0, n_items, 400), n_items)
    allowed, excluded = rng.random(n_items) < density, rng.integers(0, n_items + 1, n_excluded)
    items, shares = popularity.recommend(k, allowed, excluded)
    ever_positive = popularity.share + np.float32(1)  # items nobody touched come too, last
    assert items.tolist() == slow_list(ever_positive, k, allowed, excluded)
    assert shares.tolist() == popularity.share[items].tolist()


def test_popularity_is_the_share_of_events() -> None:
    popularity = Popularity.fit(ints(2, 2, 0, 1), 4)
    assert popularity.share.tolist() == [0.25, 0.25, 0.5, 0.0]
    assert popularity.order.tolist() == [2, 0, 1, 3]


def test_popularity_of_an_empty_log_still_answers() -> None:
    items, shares = Popularity.fit(ints(), 3).recommend(2)
    assert items.tolist() == [0, 1] and shares.tolist() == [0.0, 0.0]


def test_similar_returns_the_allowed_neighbours_without_padding() -> None:
    model = example()
    assert model.similar(0, 10)[0].tolist() == [1, 2]
    assert model.similar(0, 1)[0].tolist() == [1]
    assert model.similar(2, 10)[0].tolist() == [1]
    assert model.similar(0, 10, np.array([True, False, True, True]))[0].tolist() == [2]
    assert model.similar(3, 10)[0].tolist() == []


@pytest.mark.parametrize("item", [-1, 4])
def test_similar_refuses_an_item_outside_the_catalogue(item: int) -> None:
    with pytest.raises(IndexError, match="out of range"):
        example().similar(item, 3)


def test_save_and_load_round_trip(tmp_path: Path) -> None:
    model, popularity = example(), Popularity.fit(ints(2, 2, 0), 4)
    model.save(tmp_path / "signal_item_cf.npz")
    popularity.save(tmp_path / "signal_popularity.npz")
    again, popular = ItemCF.load(tmp_path / "signal_item_cf.npz"), Popularity.load(tmp_path / "signal_popularity.npz")
    assert (again.neighbour == model.neighbour).all() and (again.similarity == model.similarity).all()
    assert (again.decay, again.horizon) == (model.decay, model.horizon)
    assert popular.n_events == 3 and popular.log_counts().tolist() == pytest.approx(np.log1p([1, 0, 2, 0]).tolist())
    assert (popular.share == popularity.share).all() and (popular.order == popularity.order).all()


def test_saving_twice_writes_the_same_bytes(tmp_path: Path) -> None:
    example().save(tmp_path / "a.npz")
    example().save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


BROKEN: list[dict[str, Any]] = [
    {"neighbour": np.array([[1], [2]], np.int32)},
    {"neighbour": np.array([[-1], [0]], np.int32)},
    {"neighbour": np.array([[0], [0]], np.int32)},
    {"neighbour": np.array([[1], [0]], np.int64)},
    {"neighbour": np.array([1, 0], np.int32)},
    {"similarity": np.array([[np.nan], [0]], np.float32)},
    {"similarity": np.array([[np.inf], [0]], np.float32)},
    {"similarity": np.array([[-1], [0]], np.float32)},
    {"similarity": np.array([[1.0]], np.float32)},
    {"neighbour": np.array([[1, 1], [0, 0]], np.int32), "similarity": np.array([[1, 2]] * 2, np.float32)},
    {"decay": np.float64(0)},
    {"decay": np.float64(1.5)},
    {"decay": np.float64(np.nan)},
    {"horizon": np.int64(0)},
    {"format": np.int64(99)},
    {"format": np.zeros(2, np.int64)},
    {"kind": np.str_("popularity")},
    {"unexpected": np.int64(1)},
    {"similarity": np.array([[{}], [{}]], object)},
]


@pytest.mark.parametrize("change", BROKEN, ids="+".join)
def test_file_with_values_out_of_range_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    arrays: dict[str, Any] = {
        "format": np.int64(FORMAT_VERSION),
        "kind": np.str_("neighbours"),
        "neighbour": np.array([[1], [0]], np.int32),
        "similarity": np.array([[1.0], [0.5]], np.float32),
        "decay": np.float64(0.9),
        "horizon": np.int64(50),
    }
    np.savez(tmp_path / "good.npz", **arrays)
    ItemCF.load(tmp_path / "good.npz")
    np.savez(tmp_path / "bad.npz", **{**arrays, **change})
    with pytest.raises(ScorerFileError):
        ItemCF.load(tmp_path / "bad.npz")


@pytest.mark.parametrize("change", ["order", "rank"])
def test_popularity_file_with_another_order_is_refused(change: str, tmp_path: Path) -> None:
    popularity = Popularity.fit(ints(2, 2, 0), 4)
    arrays = {name: getattr(popularity, name) for name in ("share", "order", "rank")}
    for wrong in (arrays[change][::-1], arrays[change][:-1]):
        save_arrays(
            tmp_path / "bad.npz",
            format=np.int64(FORMAT_VERSION),
            kind=np.str_("popularity"),
            n_events=np.int64(3),
            **arrays | {change: wrong.copy()},
        )
        with pytest.raises(ScorerFileError):
            Popularity.load(tmp_path / "bad.npz")


@pytest.mark.parametrize("share", [[0.5, 0.2], [1.5, -0.5], [np.nan, 1.0]])
def test_popularity_file_with_impossible_shares_is_refused(share: list[float], tmp_path: Path) -> None:
    np.savez(
        tmp_path / "bad.npz",
        format=np.int64(FORMAT_VERSION),
        n_events=np.int64(3),
        kind=np.str_("popularity"),
        share=np.array(share, np.float32),
        order=np.arange(2, dtype=np.int32),
        rank=np.arange(2, dtype=np.int32),
    )
    with pytest.raises(ScorerFileError):
        Popularity.load(tmp_path / "bad.npz")


def test_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "signal_item_cf.npz"
    example().save(path)
    good = path.read_bytes()
    for damage in (b"", good[: len(good) // 2], b"not a zip file", good[:80] + b"\xff" * 40 + good[120:]):
        path.write_bytes(damage)
        with pytest.raises(ScorerFileError):
            ItemCF.load(path)
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(ScorerFileError):
        ItemCF.load(path)
    with pytest.raises(FileNotFoundError):
        ItemCF.load(tmp_path / "absent.npz")


def test_scorer_imports_neither_torch_nor_the_training_packages() -> None:
    unwanted = "{'torch', 'scipy', 'polars', 'implicit'}"
    code = f"import service.artifact.scorers.item_cf, sys; print(sorted({unwanted} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
