"""Which of a user's signals reach the graph: those that can matter to the list, the largest first."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from service.artifact.graphs import graph_names as names
from service.artifact.trie import Trie
from service.engine.decode.filters import FilterTable
from service.engine.decode.signal_inputs import ListableSignals, listable, signal_feeds
from service.engine.decoding import Decoding, signals_max
from service.engine.jobs import ListRequest
from service.signals.item_values import NO_VALUES, ItemValues, PackedValues
from tests.support.networks import random_catalogue, random_codes

N = 50
FILTERS: tuple[dict[str, list[str]], ...] = ({}, {"category": ["a"]}, {"brand": ["x"], "category": ["b", "c"]})
RNG = np.random.default_rng(0)
TRIE = Trie.build(random_codes(RNG, N, (9, 9)))
TABLE = FilterTable(TRIE, random_catalogue(RNG, N))


@settings(max_examples=100, deadline=None)
@given(
    values=st.dictionaries(st.integers(0, N + 5), st.integers(-9, 9), max_size=N),
    excluded=st.lists(st.integers(-3, N + 9), max_size=40),
    chosen=st.sampled_from(FILTERS),
    most=st.integers(1, 30) | st.integers(1, 5),
)
def test_they_are_the_largest_of_what_filter_and_exclusions_leave(
    values: dict[int, int], excluded: list[int], chosen: dict[str, list[str]], most: int
) -> None:
    """Items beyond the trie have no path; they are merged into the list afterwards."""
    mask = TABLE.build(chosen)
    items = sorted(values)
    signals = ItemValues(np.array(items, np.int64), np.array([values[i] for i in items], np.float32))
    kept = listable(signals, TRIE, mask, np.array(excluded, np.int64), most)
    possible = {i: v for i, v in values.items() if v and i < N and mask.allowed[i] and i not in excluded}
    assert kept.items.tolist() == sorted(set(kept.items.tolist()))
    assert {i: possible.get(i) for i in kept.items.tolist()} == dict(
        zip(kept.items.tolist(), kept.values.tolist(), strict=True)
    )
    assert sorted(map(abs, kept.values.tolist())) == sorted(map(abs, possible.values()))[-most:]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2)), max_size=12), st.booleans())
def test_those_of_a_profile_are_kept_for_its_filter_and_its_exclusions(
    asked: list[tuple[int, int, int]], dense: bool
) -> None:
    rng = np.random.default_rng(0)
    table = FilterTable(TRIE, random_catalogue(np.random.default_rng(0), N), rows=N + 2 if dense else 0)
    found = ListableSignals(TRIE, dense=dense)
    values = [ItemValues(np.arange(0, N + 4, 3), rng.standard_normal(18).astype(np.float32)) for _ in range(3)]
    packed, excluded = [PackedValues.of(one) for one in values], [np.arange(n) for n in (0, 5, 30)]
    for user, filters, left_out in asked:
        mask = table.build(FILTERS[filters])
        request = ListRequest(
            context=np.zeros(1, np.int64), gap_ms=0, decoding=Decoding("beam"), k=3,
            filter_id=mask.id, excluded=excluded[left_out], signals=packed[user],
        )  # fmt: skip
        kept = found.of(request, mask)
        assert found.of(request, mask) is kept
        wanted = listable(values[user], TRIE, mask, excluded[left_out], signals_max(dense=dense))
        assert (kept.items.tolist(), kept.values.tolist()) == (wanted.items.tolist(), wanted.values.tolist())


def test_the_padding_adds_nothing() -> None:
    feeds = signal_feeds([ItemValues(np.array([3, 7]), np.array([1.0, -2.0], np.float32)), NO_VALUES], rows=4, size=3)
    assert feeds[names.SIGNAL_ITEM].tolist() == [[3, 7, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert feeds[names.SIGNAL_VALUE].tolist() == [[1.0, -2.0, 0.0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]
