"""Filter masks: right, bounded, and still there when they are needed."""

from __future__ import annotations

import numpy as np
import pytest

from export.trie import Trie
from service.filters import EVERYTHING, NOTHING, FilterTable
from tests.networks import random_catalogue, random_codes


@pytest.fixture
def table() -> FilterTable:
    rng = np.random.default_rng(0)
    return FilterTable(Trie.build(random_codes(rng, 40, (5, 4, 6))), random_catalogue(rng, 40), mask_bytes_max=2000)


def test_the_same_filter_has_one_id_whatever_its_order(table: FilterTable) -> None:
    assert table.id({}) == EVERYTHING
    assert table.id({"category": ["a", "b"], "brand": ["x"]}) == table.id({"brand": ["x"], "category": ["b", "a", "a"]})
    assert table.id({"category": ["a"]}) != table.id({"category": ["b"]})


def test_filters_that_allow_nothing_share_an_id_and_cost_no_memory(table: FilterTable) -> None:
    assert {table.id({"brand": [f"invented {n}"]}) for n in range(100)} == {NOTHING}
    assert not any(count.any() for count in table.mask(NOTHING).counts)
    assert table._bytes == 0


def test_a_mask_that_was_dropped_for_room_is_computed_again(table: FilterTable) -> None:
    wanted = [{"category": [a, b]} for a in "abcd" for b in "abcd" if a < b]
    ids = [table.id(filters) for filters in wanted]
    assert table._bytes <= 2000
    for number, filters in zip(ids, wanted, strict=True):
        allowed = table._catalogue.allowed(filters)
        assert allowed is not None
        np.testing.assert_array_equal(table.mask(number).counts[-1] > 0, allowed[table._trie.leaf_item])
        assert table._bytes <= 2000


def test_an_unknown_field_is_named(table: FilterTable) -> None:
    with pytest.raises(ValueError, match="colour"):
        table.id({"colour": ["red"]})
