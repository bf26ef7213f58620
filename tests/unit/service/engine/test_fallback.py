"""The rungs below the model: filled up to k, new items included, nothing excluded or forbidden."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.artifact.items.item_filters import ItemFilter
from service.artifact.scorers.item_cf import ItemCF
from service.artifact.scorers.item_column import ItemColumn
from service.artifact.scorers.popularity import Popularity
from service.artifact.scorers.ranker_weights import RankerWeights
from service.artifact.scorers.signal_files import SignalPart
from service.engine.fallback import Constraints, Fallback
from service.engine.fused_scorer import FusedScorer, best_allowed
from service.signals.item_values import ItemValues
from service.signals.ranker import Ranker
from service.signals.user_history import UserHistory

N = 12
FIRST_NEW = N + 2
NOTHING = np.zeros(0, np.int64)
FREE = Constraints(None, NOTHING)
WEIGHTS: Mapping[str, Mapping[str, float]] = {
    "item-CF alone": {"item_cf": 1.0},
    "tables": {"item_cf": 1.0, "other": 2.0},
    "a table against": {"item_cf": 1.0, "other": -1.5},
    "tables and items": {"item_cf": 1.0, "other": -0.5, "rising": -0.3},
}
# Weights with which no signal ever speaks for an item.
SILENT: Mapping[str, Mapping[str, float]] = {"nothing": {}, "zero": {"item_cf": 0.0}, "against": {"item_cf": -1.0}}


def rising(seed: int) -> ItemColumn:
    """A signal of items."""
    return ItemColumn(np.random.default_rng(seed).standard_normal(N).astype(np.float32))


def table(seed: int) -> ItemCF:
    rng = np.random.default_rng(seed)
    neighbour = np.stack([rng.permutation(np.delete(np.arange(N), item))[:3] for item in range(N)]).astype(np.int32)
    return ItemCF(neighbour, -np.sort(-rng.random((N, 3), np.float32), axis=1), 0.8, 4)


def fallback(seed: int, stand_in: dict[int, int], weights: str = "item-CF alone") -> Fallback:
    item_cf = table(seed)
    popularity = Popularity.fit(np.random.default_rng(seed).integers(0, N, 50), N)
    parts: dict[str, SignalPart] = {
        "item_cf": item_cf, "other": table(seed + 1), "popularity": popularity, "rising": rising(seed)
    }  # fmt: skip
    ranker = Ranker.of(parts, RankerWeights(tuple(parts), {"default": {"path": 1.0}}, {**WEIGHTS, **SILENT}[weights]))
    return Fallback.of(item_cf, popularity, ranker).over(stand_in)


def of(*items: int) -> UserHistory:
    return UserHistory.of_items(np.array(items, np.int64))


@given(st.integers(0, 50), st.sampled_from([*WEIGHTS]), st.integers(0, 3), st.data())
@settings(max_examples=60, deadline=None)
def test_k_items_whenever_k_are_allowed_new_ones_included(
    seed: int, weights: str, n_new: int, data: st.DataObject
) -> None:
    size = FIRST_NEW + n_new if n_new else N
    item = st.integers(0, size)
    items = [*range(N), *range(FIRST_NEW, FIRST_NEW + n_new)]
    mask = data.draw(st.none() | st.lists(st.booleans(), min_size=size, max_size=size))
    allowed = None if mask is None else np.array(mask, np.bool_)
    if allowed is not None:
        allowed[N : N + 2] = False
    history = of(*data.draw(st.lists(item, max_size=6)))
    excluded = np.unique(np.array(data.draw(st.lists(item, max_size=6)), np.int64))
    k = data.draw(st.integers(1, 20))
    below = fallback(seed, {FIRST_NEW + at: at for at in range(n_new)}, weights)
    possible = {i for i in items if (allowed is None or allowed[i]) and i not in excluded}
    for listing in (
        below.by_history(history, k, Constraints(allowed, excluded)),
        below.popular(k, Constraints(allowed, excluded)),
    ):
        found = listing.items.tolist()
        assert len(found) == len(set(found)) == len(listing.scores) == min(k, len(possible))
        assert set(found) <= possible
        assert (np.diff(listing.scores) <= 0).all()


@given(st.integers(0, 50), st.sampled_from([*WEIGHTS][1:]), st.data())
@settings(max_examples=60, deadline=None)
def test_the_fused_list_is_the_weighted_sum_over_all_candidates(seed: int, weights: str, data: st.DataObject) -> None:
    below = fallback(seed, {}, weights)
    assert below.fused is not None
    history = of(*data.draw(st.lists(st.integers(0, N), min_size=1, max_size=6)))
    excluded = np.unique(np.array(data.draw(st.lists(st.integers(0, N), max_size=4)), np.int64))
    allowed = np.array(data.draw(st.lists(st.booleans(), min_size=N, max_size=N)), np.bool_)
    k = data.draw(st.integers(1, N))
    ranker = below.fused.ranker
    score = dict.fromkeys(range(N), 0.0)
    candidates: set[int] = set()
    for signal in ranker.user_signals:
        values = signal.values(history)
        candidates |= set(values.items.tolist())
        for item, value in zip(values.items.tolist(), values.values.tolist(), strict=True):
            score[item] += WEIGHTS[weights][signal.name] * value
    for signal_of_items in ranker.item_signals:
        for item in range(N):
            score[item] += WEIGHTS[weights].get(signal_of_items.name, 0.0) * float(signal_of_items.values[item])
        if signal_of_items.name in WEIGHTS[weights] and candidates:
            candidates |= set(below.popularity.recommend(k, allowed, excluded)[0].tolist())
    if "rising" not in WEIGHTS[weights]:
        candidates = {item for item in candidates if score[item] > 1e-6}
    possible = [item for item in candidates if allowed[item] and item not in excluded]
    items, scores = below.fused.rank(ranker.user(history), k, allowed, excluded)
    best = sorted((score[item] for item in possible), reverse=True)[:k]
    assert set(items.tolist()) <= set(possible)
    assert scores.tolist() == pytest.approx(best, abs=1e-5)
    assert scores.tolist() == pytest.approx([score[item] for item in items.tolist()], abs=1e-5)


def test_a_filter_without_a_mask_chooses_the_same_as_its_mask() -> None:
    """Of many items some parts are tested at a time: the list is full early, late, or never."""
    rng = np.random.default_rng(0)
    for share in (0.001, 0.005, 0.3, 1.0):
        stock = rng.random(9000) < share
        items = np.unique(rng.integers(0, 9000, 5000))
        scores = rng.integers(0, 9, len(items)).astype(np.float32)
        by_mask = best_allowed(items, scores, 10, stock)
        one_by_one = best_allowed(items, scores, 10, ItemFilter({}, False, (), stock, b""))
        assert [part.tolist() for part in by_mask] == [part.tolist() for part in one_by_one]


def test_an_answer_names_the_signals_that_ranked_it() -> None:
    assert fallback(0, {}).by_history(of(3), 5, FREE).scorers == ("item_cf",)
    assert fallback(0, {}, "tables").by_history(of(3), 5, FREE).scorers == ("item_cf", "other")
    fused = fallback(0, {}, "tables and items")
    assert fused.by_history(of(3), 5, FREE).scorers == ("item_cf", "other", "rising")
    for listing in (fused.by_history(of(), 5, FREE), fused.popular(5, FREE)):
        assert (listing.source, listing.scorers) == ("popular", ("popularity",))


@pytest.mark.parametrize("weights", [*SILENT])
def test_popular_items_are_listed_where_no_signal_speaks_for_an_item(weights: str) -> None:
    below = fallback(0, {}, weights)
    listing, popular = below.by_history(of(3, 5), 5, FREE), below.popular(5, FREE)
    assert listing.items.tolist() == popular.items.tolist() and listing.scores.tolist() == popular.scores.tolist()
    assert (listing.source, listing.scorers) == ("popular", ("popularity",))


@pytest.mark.parametrize("weights", [*WEIGHTS])
def test_events_of_a_new_item_count_as_those_of_the_one_it_is_like(weights: str) -> None:
    below = fallback(0, {FIRST_NEW: 5}, weights)
    of_new = below.by_history(of(FIRST_NEW), 5, FREE)
    of_like = below.by_history(of(5), 5, FREE)
    assert of_new.source == "item_cf" and of_new.items.tolist() == of_like.items.tolist()


def test_a_new_item_is_similar_to_the_one_it_is_like_and_its_neighbours() -> None:
    below = fallback(0, {FIRST_NEW: 5})
    neighbours, _ = below.similar(5, 10)
    items, scores = below.similar(FIRST_NEW, 10)
    assert items.tolist() == [5, *neighbours.tolist()] and (np.diff(scores) <= 0).all()
    allowed = np.ones(FIRST_NEW + 1, np.bool_)
    allowed[5] = False
    assert below.similar(FIRST_NEW, 10, allowed)[0].tolist() == neighbours.tolist()


def test_the_list_of_many_candidates_is_the_best_of_all_of_them() -> None:
    """The largest values of the user are looked at first, which must not show, however much the items' own add."""
    rng = np.random.default_rng(0)
    n, k = 9000, 10
    popularity = Popularity.fit(rng.integers(0, n, 500), n)
    neighbours = ItemCF(np.zeros((n, 1), np.int32), np.zeros((n, 1), np.float32))
    column = rng.standard_normal(n).astype(np.float32)
    for weight in (0.01, -0.1, 1.0, 100.0):
        parts: dict[str, SignalPart] = {"item_cf": neighbours, "popularity": popularity, "rising": ItemColumn(column)}
        weights = RankerWeights(tuple(parts), {"default": {"path": 1.0}}, {"item_cf": 1.0, "rising": weight})
        scorer = FusedScorer.below(Ranker.of(parts, weights), popularity)
        for share in (0.001, 0.3, 1.0):
            items = np.unique(rng.integers(0, n, 5000))
            values = ItemValues(items, (rng.integers(-3, 99, len(items)) / 9).astype(np.float32))
            excluded, allowed = np.unique(rng.choice(items, 300)), rng.random(n) < share
            found, scores = scorer.rank(values, k, allowed, excluded)
            popular = popularity.recommend(k, allowed, excluded)[0]
            candidates = np.setdiff1d(np.union1d(items, popular), excluded)
            candidates = candidates[allowed[candidates]]
            expected = values.of(candidates) + np.float32(weight) * column[candidates]
            order = np.argsort(-expected, kind="stable")[:k]
            np.testing.assert_array_equal(found, candidates[order])
            np.testing.assert_array_equal(scores, expected[order])
