"""Filter masks: right, bounded, and still there when they are needed."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.artifact.items.catalogue_item import CatalogueItem
from service.artifact.trie import Trie
from service.common.errors import FilterNotReady
from service.engine.decode import filters as filters_module
from service.engine.decode.filters import FilterTable
from service.engine.held_filters import FilterUsage
from service.engine.jobs import EVERYTHING, NOTHING
from tests.support.networks import random_catalogue, random_codes


@pytest.fixture
def table() -> FilterTable:
    rng = np.random.default_rng(0)
    return FilterTable(Trie.build(random_codes(rng, 40, (5, 4, 6))), random_catalogue(rng, 40), bytes_max=100_000)


def test_the_same_filter_has_one_id_whatever_its_order(table: FilterTable) -> None:
    assert table.id({}) == EVERYTHING
    assert table.id({"category": ["a", "b"], "brand": ["x"]}) == table.id({"brand": ["x"], "category": ["b", "a", "a"]})
    assert table.id({"category": ["a"]}) != table.id({"category": ["b"]})


def test_filters_that_allow_nothing_share_an_id_and_cost_no_memory(table: FilterTable) -> None:
    assert {table.id({"brand": [f"invented {n}"]}) for n in range(100)} == {NOTHING}
    assert not any(count.any() for count in table.mask(NOTHING).counts)
    assert table.usage == FilterUsage(0, 0, 0)


def test_unknown_values_are_no_part_of_a_filter(table: FilterTable) -> None:
    drama = table.build({"category": ["a"]})
    for number in range(50):
        values = {"category": ["a", f"z{number}"]}
        assert table.build(values) is drama
        wanted = table._catalogue.filter(values)
        assert (wanted.values, wanted.nothing) == ({"category": ("a",)}, False)
        assert table.held(wanted.values) is drama
    assert table.usage.held == 1


def test_the_least_recently_used_mask_goes_and_is_built_again_when_it_is_wanted(table: FilterTable) -> None:
    wanted: list[dict[str, list[str]]] = [{"category": [a], "brand": [b]} for a in "abcd" for b in "xyz"]
    used = table.build(wanted[0])
    for filters in wanted * 2:
        mask, allowed = table.build(filters), table._catalogue.allowed(filters)
        assert table.held(wanted[0]) is used
        assert allowed is not None
        np.testing.assert_array_equal(mask.counts[-1] > 0, allowed[table._trie.leaf_item])
        assert table.usage.bytes <= 100_000
    assert 0 < table.usage.held < len(wanted)
    assert table.usage.evicted > 0


def test_who_fills_the_memory_drives_out_its_own_filters_and_no_others(table: FilterTable) -> None:
    kept = table.build({"brand": ["x"]}, "modest")
    for a, b in itertools.permutations("abcd", 2):
        for brand in ("x", "y"):
            table.build({"category": [a], "brand": [brand]}, "greedy")
            table.build({"category": [a, b]}, "greedy")
    assert table.usage.evicted > 2
    assert table.held({"brand": ["x"]}) is kept
    after = table.renewed(table._trie, table._catalogue)
    after.build({"category": ["a", "b", "c"]}, "greedy")
    assert after.held({"brand": ["x"]}) is not None, "a change of the catalogue keeps whose they are"


def test_a_place_that_a_run_reads_is_not_given_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filters_module, "PINNED_S", 20.0)
    rng = np.random.default_rng(0)
    table = FilterTable(Trie.build(random_codes(rng, 40, (5, 4, 6))), random_catalogue(rng, 40), bytes_max=1)
    first = table.id({"brand": ["x"]})
    with ThreadPoolExecutor(1) as builder:
        with table.pinned([first]):
            building = builder.submit(table.build, {"brand": ["y"]})
            assert not wait([building], timeout=0.05).done
            assert table.mask(first).id == first
        assert building.result(10.0).id != first
    with pytest.raises(FilterNotReady), table.pinned([first]):
        pass


def test_an_unknown_field_is_named(table: FilterTable) -> None:
    with pytest.raises(ValueError, match="colour"):
        table.id({"colour": ["red"]})


def allowed_items(table: FilterTable, number: int) -> set[int]:
    return set(np.flatnonzero(table.mask(number).counts[-1][table._trie.item_leaf] > 0).tolist())


@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_values_of_a_field_are_or_ed_fields_and_stock_are_and_ed(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 9)))
    catalogue = random_catalogue(rng, 40)
    gone = data.draw(st.sets(st.integers(0, 39)))
    table = FilterTable(Trie.build(random_codes(rng, 40, (5, 4, 6))), catalogue.updated((), sorted(gone)))
    filters = data.draw(
        st.fixed_dictionaries(
            {},
            optional={
                "category": st.lists(st.sampled_from("abcdz"), min_size=1, max_size=3),
                "brand": st.lists(st.sampled_from("xyz"), min_size=1, max_size=2),
            },
        )
    )
    expected = {
        at
        for at, item in enumerate(catalogue.items)
        if at not in gone and all(set(values) & set(item.facet(name)) for name, values in filters.items())
    }
    number = table.id(filters)
    mask = table.mask(number)
    assert allowed_items(table, number) == expected
    without_mask = table._catalogue.filter(filters)
    assert set(np.flatnonzero(without_mask[np.arange(40)]).tolist()) == expected
    if filters:
        few = without_mask.few()
        assert few is not None and few.tolist() == sorted(expected)
    for level, counts in enumerate(mask.counts):
        nodes = table._trie.ancestors(table._trie.item_leaf[sorted(expected)])[level]
        assert counts.tolist() == np.bincount(nodes, minlength=len(counts)).tolist()
        assert mask.node_ok(level).tolist() == (counts > 0).tolist()


def test_a_change_of_stock_is_another_table_with_the_same_numbers() -> None:
    rng = np.random.default_rng(0)
    trie, catalogue = Trie.build(random_codes(rng, 40, (5, 4, 6))), random_catalogue(rng, 40)
    before = FilterTable(trie, catalogue)
    number = before.id({"brand": ["x"]})
    of_x = allowed_items(before, number)
    sold_out = catalogue.updated((), sorted(of_x))
    after = before.renewed(trie, sold_out)
    assert after.id({"brand": ["x"]}) == number != NOTHING
    assert number in after, "computed before it is asked for"
    assert allowed_items(after, number) == set()
    assert allowed_items(after, EVERYTHING) == set(range(40)) - of_x
    assert allowed_items(before, number) == of_x, "requests under way keep what they saw"
    late = before.id({"brand": ["y"]})
    assert late not in after, "and no number has two meanings"
    assert after.id({"brand": ["y"]}) not in (late, number)


def test_items_that_wait_outside_the_trie_are_filtered_too() -> None:
    rng = np.random.default_rng(0)
    trie, exported = Trie.build(random_codes(rng, 40, (5, 4, 6))), random_catalogue(rng, 40)
    new = (CatalogueItem("n0", brand="x"), CatalogueItem("n1", brand="y"), CatalogueItem("n2", brand="new"))
    first = exported.first_new
    catalogue = exported.updated(new, [first + 1])
    table = FilterTable(trie, catalogue, waiting=np.arange(first, first + 3))
    assert table.mask(EVERYTHING).waiting.tolist() == [True, False, True]
    assert table.mask(table.id({"brand": ["x", "y"]})).waiting.tolist() == [True, False, False]
    only_new = table.id({"brand": ["new"]})
    assert only_new != NOTHING
    assert table.mask(only_new).waiting.tolist() == [False, False, True]
    assert not any(counts.any() for counts in table.mask(only_new).counts)
