"""Lists and events are counted as plain loops count them."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.artifact.features import EVENT_TYPES
from service.artifact.items.catalogue import Catalogue
from service.artifact.items.catalogue_item import CatalogueItem
from service.artifact.scorers.popularity import Popularity
from service.watch import statistics
from service.watch.counting import Counting, SeenEvent, ShownList
from service.watch.figures import figures
from service.watch.item_groups import BANDS, CATEGORIES_MAX, ItemGroups
from service.watch.window import Window

N = 30
SHARES = np.array([20, 20, 10, 10, 10, *[2] * 15, *[0] * 10], np.float64)
POPULARITY = Popularity.of((SHARES / SHARES.sum()).astype(np.float32), 100)
CATALOGUE = Catalogue.of([CatalogueItem(str(i), None, ("abc"[i % 3],) if i % 7 else ()) for i in range(N)])
GROUPS = ItemGroups.of(CATALOGUE, POPULARITY)
EDGES = np.arange(1.0, 10.0)


def band(item: int | None) -> str:
    """The band of an item by the definition: how much of all events the items before it have."""
    if item is None:
        return "unknown"
    if item >= N:
        return "new"
    if not SHARES[item]:
        return "cold"
    before = SHARES[:item].sum() / SHARES.sum()
    return "head" if before < 0.5 else "middle" if before < 0.8 else "tail"


def category(item: int | None) -> str:
    return "none" if item is None or item >= N or not item % 7 else "abc"[item % 3]


lists = st.lists(
    st.tuples(
        st.integers(0, 5),
        st.lists(st.integers(0, N + 3), min_size=1, max_size=12, unique=True),
        st.sets(st.integers(0, N + 3)),
        st.integers(0, 30),
        st.booleans(),
    ),
    max_size=12,
)
events = st.lists(
    st.tuples(
        st.integers(0, 5), st.sampled_from([*EVENT_TYPES, "impression", "odd"]), st.none() | st.integers(0, N + 9)
    ),
    max_size=12,
)
Shown = tuple[int, list[int], set[int], int, bool]


def shown(number: int, one: Shown) -> ShownList:
    user, items, seen, history, scored = one
    scores = np.arange(len(items), 0, -1).astype(np.float32) if scored else None
    known = np.array(sorted(seen), np.int64)
    return ShownList(f"L{number}", user, "ab"[user % 2], np.array(items), scores, known, history)


@settings(max_examples=60, deadline=None)
@given(lists, events)
def test_counts_are_those_of_plain_loops(some: Sequence[Shown], done: Sequence[tuple[int, str, int | None]]) -> None:
    counting = Counting(GROUPS, EDGES)
    window = counting.window()
    by_segment = counting.lists([shown(n, one) for n, one in enumerate(some)], [window], 0.0) if some else {}
    index = {str(item): item for item in range(N + 4)}
    stream = [
        SeenEvent(user, kind, None if item is None else str(item), f"L{n}") for n, (user, kind, item) in enumerate(done)
    ]
    counting.events(stream, index, [window], 1800.0)

    expected: dict[str, Counter[str]] = {name: Counter() for name in statistics.STATISTICS}
    came, segments, followed = set[int](), Counter[tuple[str, str]](), Counter[str]()
    predicted: dict[int, list[tuple[float, bool]]] = defaultdict(list)
    scored: dict[int, dict[int, int]] = {}
    for number, (user, items, seen, history, with_scores) in enumerate(some):
        if user not in came:
            came.add(user)
            name = "0" if history == 0 else "1-4" if history < 5 else "5-19" if history < 20 else "20+"
            expected["visits"][name] += 1
        for place, item in enumerate(items):
            expected["list_popularity"][band(item)] += 1
            expected["list_categories"][category(item)] += 1
            expected["list_repeats"]["seen" if item in seen else "not_seen"] += 1
            segments["ab"[user % 2], band(item)] += 1
            if with_scores and place < 10:
                at = min(10, math.floor(len(items) - place) + 1)
                expected["list_scores"][str(at)] += 1
                scored.setdefault(number, {})[item] = at
    for number, (_, kind, asked) in enumerate(done):
        if asked is None or kind == "impression":
            continue
        known = asked if asked < N + 4 else None
        expected["event_types"][kind if kind in EVENT_TYPES else "other"] += 1
        expected["event_popularity"][band(known)] += 1
        expected["event_categories"][category(known)] += 1
        if known is not None and known in scored.get(number, {}):
            followed[str(scored[number][known])] += 1
            listed = some[number][1]
            first = 1.0 / sum(math.exp(-place) for place in range(len(listed)))
            predicted[min(9, int(first * 10))].append((first, known == listed[0]))
    for name, bins in counting.bins.items():
        assert dict(zip(bins, window.counts[name].tolist(), strict=True)) == {b: expected[name][b] for b in bins}, name
    errors = [abs(sum(p - hit for p, hit in pairs)) for pairs in predicted.values()]
    events_followed = sum(map(len, predicted.values()))
    wanted = sum(errors) / events_followed if events_followed else None
    assert window.score_calibration() == (None if wanted is None else pytest.approx(wanted, abs=1e-9))
    assert window.followed.tolist() == [followed[b] for b in counting.bins["list_scores"]]
    for segment, (bands, _) in by_segment.items():
        assert bands.tolist() == [segments[segment, name] for name in BANDS]


def test_figures_are_those_of_the_definitions() -> None:
    counting = Counting(GROUPS, EDGES)
    window, before = counting.window(), counting.window()
    counting.lists([shown(0, (0, [0, 1, 25], {1}, 0, True)), shown(1, (1, [0, 29], set(), 3, True))], [window], 0.0)
    counting.lists([shown(2, (2, [0, 3], set(), 3, True))], [before], 0.0)
    counting.events([SeenEvent(0, "view", "0", "L0"), SeenEvent(0, "view", "gone", None)], {"0": 0}, [window], 0.0)
    found = figures(window, N, before)
    assert found["coverage"] == pytest.approx(4 / 30)
    assert found["entropy"] == pytest.approx(-(0.4 * math.log2(0.4) + 3 * 0.2 * math.log2(0.2)))
    assert found["tail_share"] == pytest.approx(2 / 5)
    assert found["repeats"] == pytest.approx(1 / 5)
    assert found["overlap_yesterday"] == pytest.approx(0.4)
    assert found["new_users"] == pytest.approx(1 / 2)
    assert found["unknown_items"] == pytest.approx(1 / 2)
    novelty = [-math.log2((round(float(POPULARITY.share[i]) * 100) + 1) / 130) for i in (0, 1, 25, 0, 29)]
    assert found["novelty"] == pytest.approx(np.mean(novelty), rel=1e-5)
    # Scores 3, 2, 1: the first item came.
    assert found["score_calibration"] == pytest.approx(1.0 - 1.0 / (1.0 + math.exp(-1.0) + math.exp(-2.0)))
    # Item 0 had the highest score of the first list: it beats all but itself and its equals.
    scores, best = [4, 3, 2, 3, 2], 4
    assert found["score_auc"] == pytest.approx(np.mean([(best > s) + 0.5 * (best == s) for s in scores]))


def test_an_empty_window_has_no_figures() -> None:
    assert figures(Counting(GROUPS, None).window(), N, None) == {}


def test_categories_beyond_the_largest_are_one_group() -> None:
    many = Catalogue.of([CatalogueItem(str(i), None, (f"c{i}",)) for i in range(N)])
    groups = ItemGroups.of(many, POPULARITY)
    assert groups.categories == (*(f"c{i}" for i in range(CATEGORIES_MAX)), "other", "none")
    assert groups.categories_of(np.array([0, CATEGORIES_MAX, N])).tolist() == [0, CATEGORIES_MAX, CATEGORIES_MAX + 1]


def test_a_divergence_is_that_of_the_definition_and_finite_where_a_bin_is_empty() -> None:
    p, q = np.array([0.5, 0.5, 0.0]), np.array([0.25, 0.25, 0.5])
    kl = sum(a * math.log2(a / ((a + b) / 2)) for a, b in zip(p, q, strict=True) if a)
    lk = sum(b * math.log2(b / ((a + b) / 2)) for a, b in zip(p, q, strict=True) if b)
    assert float(statistics.js_bits(p, q)) == pytest.approx((kl + lk) / 2)
    assert float(statistics.js_bits(p, p)) == 0.0
    assert float(statistics.js_bits(np.array([1.0, 0.0]), np.array([0.0, 1.0]))) == pytest.approx(1.0)


def test_one_subject_with_many_events_counts_as_few() -> None:
    window = Window(dict.fromkeys(statistics.STATISTICS, 10), N)
    window.acted[:50] = 1
    assert window.size("event_types") == pytest.approx(50)
    window.acted[0] = 1000
    assert window.size("event_types") < 2
