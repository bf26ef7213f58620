"""The catalogue in columns, against the items it was built from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.artifact.arrays import map_arrays, save_arrays
from service.artifact.items import columns
from service.artifact.items.catalogue import RESERVED, Catalogue
from service.artifact.items.catalogue_item import FACETS, CatalogueItem, categories_of, path_of, steps_of

words = st.text(min_size=1, max_size=6)
names = st.sampled_from(["a", "b", "ccc", "ä", "日本", "x/y"])


shop_fields = st.fixed_dictionaries(
    {},
    optional={
        "price": st.floats(0, 1e6),
        "currency": st.sampled_from(["EUR", "JPY"]),
        "stock": st.integers(1, 2**31 - 1),
        "image": st.just("/a.png"),
        "url": st.sampled_from(["/a", "https://shop/ä"]),
        "valid_from_ms": st.integers(1, 2**45),
        "valid_until_ms": st.integers(1, 2**45),
    },
)


@st.composite
def item_lists(draw: st.DrawFn) -> list[CatalogueItem]:
    ids = draw(st.lists(words, min_size=1, max_size=20, unique=True))
    shop = draw(st.booleans())  # whether items have more than a title, a category, a brand and attributes
    items = []
    for item_id in ids:
        categories = draw(st.lists(names | st.lists(names, min_size=1, max_size=3) if shop else names))
        fields: dict[str, Any] = dict(categories_of(categories))
        more = draw(shop_fields) if shop else {}
        title, brand = draw(st.none() | st.text(max_size=8)), draw(st.none() | names)
        attributes = tuple(draw(st.lists(names, max_size=2)))
        items.append(CatalogueItem(item_id, title, brand=brand, attributes=attributes, **(fields | more)))
    return items


def slow_matches(items: Sequence[CatalogueItem], filters: dict[str, list[str]]) -> list[bool]:
    return [all(set(values) & set(item.facet(name)) for name, values in filters.items()) for item in items]


def plain(items: Sequence[CatalogueItem], path: Path) -> Path:
    """Writes the items with the fields of before."""
    Catalogue.of([CatalogueItem(*astuple(item)[:5]) for item in items]).save(path)
    return path


def check(catalogue: Catalogue, items: Sequence[CatalogueItem]) -> None:
    assert list(catalogue.items) == list(items)
    assert list(catalogue.item_ids) == [item.item_id for item in items]
    assert [catalogue.title(at) for at in range(len(items))] == [item.title for item in items]
    assert [catalogue.categories(at) for at in range(len(items))] == [item.category for item in items]
    assert [catalogue.index[item.item_id] for item in items] == list(range(len(items)))
    assert catalogue.n_categories == len({value for item in items for value in item.category})


@pytest.mark.parametrize("small", [10**6, 0], ids=["dictionary", "hash"])
@given(items=item_lists(), filters=st.dictionaries(st.sampled_from(FACETS), st.lists(names, min_size=1, max_size=2)))
@settings(max_examples=25, deadline=None)
def test_a_catalogue_holds_its_items_before_and_after_it_is_saved(
    tmp_path_factory: pytest.TempPathFactory, small: int, items: list[CatalogueItem], filters: dict[str, list[str]]
) -> None:
    path = tmp_path_factory.mktemp("catalogue") / "catalogue.npz"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "SMALL", small)
        made = Catalogue.of(items)
        made.save(path)
        has_more = any(item != CatalogueItem(*astuple(item)[:5]) for item in items)
        assert has_more == (len(map_arrays(path)) > len(map_arrays(plain(items, path.with_name("plain.npz")))))
        for catalogue in (made, Catalogue.load(path)):
            check(catalogue, items)
            for stranger in ("", "no such id", items[0].item_id + "!"):
                if stranger not in {item.item_id for item in items}:
                    assert stranger not in catalogue.index and catalogue.index.get(stranger) is None
            mask = catalogue.allowed(filters)
            assert (None if mask is None else mask.tolist()) == (slow_matches(items, filters) if filters else None)
        assert list(Catalogue.load(path).item_ids) == [item.item_id for item in items]


def test_an_unknown_field_is_refused_and_an_unknown_value_allows_nothing() -> None:
    catalogue = Catalogue.of([CatalogueItem("1", category=("a",))])
    with pytest.raises(ValueError, match="colour"):
        catalogue.allowed({"colour": ["red"]})
    mask = catalogue.allowed({"category": ["z"]})
    assert mask is not None and not mask.any()


def test_a_value_is_known_if_an_exported_or_a_new_item_has_it() -> None:
    catalogue = Catalogue.of([CatalogueItem("a", None, ("Drama",), "acme", ("red",))])
    late = catalogue.updated([CatalogueItem("b", None, ("War",))], [0])
    known = {("category", "Drama"), ("brand", "acme"), ("attribute", "red"), ("category", "War"), ("brand", "red")}
    assert {pair for pair in known if catalogue.has_value(*pair)} == known - {("category", "War"), ("brand", "red")}
    assert {pair for pair in known if late.has_value(*pair)} == known - {("brand", "red")}
    assert not late.has_value("colour", "red")


def test_two_items_with_one_id_are_refused() -> None:
    with pytest.raises(ValueError, match="share an id"):
        Catalogue.of([CatalogueItem("1"), CatalogueItem("1")])


def test_a_long_list_of_ids_is_found_again_by_hash() -> None:
    ids = columns.Texts.of([f"item-{n}" for n in range(columns.SMALL + 3)])
    index = columns.TextIndex.of(ids)
    assert index["item-0"] == 0 and index[f"item-{columns.SMALL}"] == columns.SMALL
    assert [index.get(f"item-{n}") for n in range(0, len(ids), 997)] == list(range(0, len(ids), 997))
    assert "item--1" not in index and len(index) == len(ids)
    assert len(index._found) < 100, "only what was asked for is kept"


def test_a_catalogue_with_new_items_keeps_every_index() -> None:
    exported = Catalogue.of([CatalogueItem(str(n), f"T{n}", ("a" if n % 2 else "b",)) for n in range(5)])
    new = [CatalogueItem("n0", "N0", ("a", "new")), CatalogueItem("n1", "N1", brand="x")]
    catalogue = exported.updated(new, [1, exported.first_new + 1])
    first = 5 + RESERVED
    assert len(catalogue) == first + 2
    assert catalogue.index["3"] == 3 and catalogue.index["n1"] == first + 1 and "" not in catalogue.index
    assert [catalogue.title(at) for at in (4, 5, 6, 7, 8)] == ["T4", None, None, "N0", "N1"]
    assert catalogue.categories(first) == ("a", "new") and catalogue.item_ids[first + 1] == "n1"
    assert catalogue.n_categories == 3
    in_stock = catalogue.allowed({})
    assert in_stock is not None
    assert np.flatnonzero(in_stock).tolist() == [0, 2, 3, 4, first]
    matching = catalogue.matches({"category": ["a"]})
    assert matching is not None
    assert np.flatnonzero(matching).tolist() == [1, 3, first]
    allowed = catalogue.allowed({"category": ["a"]})
    assert allowed is not None
    assert np.flatnonzero(allowed).tolist() == [3, first]
    assert exported.allowed({}) is None, "the exported catalogue is as it was"


@pytest.mark.parametrize("change", ["id_offsets", "title_offsets", "has_title", "brand_start", "category_code"])
def test_columns_that_do_not_fit_each_other_are_refused(tmp_path: Path, change: str) -> None:
    path = tmp_path / "catalogue.npz"
    Catalogue.of([CatalogueItem(str(n), "t", ("a",), "b") for n in range(5)]).save(path)
    arrays = map_arrays(path)
    save_arrays(tmp_path / "bad.npz", **arrays | {change: arrays[change][:-1].copy()})
    with pytest.raises(ValueError, match=r"fit|length|int32"):
        Catalogue.load(tmp_path / "bad.npz")


def test_files_of_the_format_before_are_read_and_those_of_a_later_one_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.npz"
    items = [CatalogueItem(str(n), "t", ("a",), "b", price=1.5) for n in range(5)]
    Catalogue.of(items).save(path)
    arrays = map_arrays(path)
    before = {name: array for name, array in arrays.items() if name not in ("format_version", "price")}
    save_arrays(path, **before)
    assert list(Catalogue.load(path).items) == [replace(item, price=None) for item in items]
    save_arrays(path, **arrays | {"format_version": np.array(3)})
    with pytest.raises(ValueError, match="format version 3"):
        Catalogue.load(path)
    save_arrays(path, **arrays | {"price": arrays["price"][:-1].copy()})
    with pytest.raises(ValueError, match="differ in length"):
        Catalogue.load(path)


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("Shoes", ("Shoes",)),
        ("Fashion > Women > Shoes", ("Fashion", "Women", "Shoes")),
        ("Fashion  >  Women", ("Fashion", "Women")),
        ("a>b", ("a>b",)),
        ("a > ", ("a > ",)),
        (" > a", (" > a",)),
        ("", ("",)),
    ],
)
def test_a_path_is_a_text_whose_steps_are_set_apart(text: str, steps: tuple[str, ...]) -> None:
    assert steps_of(text) == steps
    assert steps_of(path_of(steps)) == steps


def test_an_item_on_paths_has_every_step_as_a_category() -> None:
    assert categories_of(["a", "b", "a"]) == {"category": ("a", "b", "a"), "paths": ()}
    assert categories_of(["Fashion > Women", ["Sale", "Women", "Shoes"], "new"]) == {
        "category": ("Fashion", "Women", "Sale", "Shoes", "new"),
        "paths": ("Fashion > Women", "Sale > Women > Shoes"),
    }
    assert categories_of([["a"], "a > b", "a > b > c"])["paths"] == ("a > b > c",)


@given(items=item_lists(), data=st.data())
@settings(max_examples=15, deadline=None)
def test_a_changed_catalogue_is_that_of_the_items_as_they_are_now(
    items: list[CatalogueItem], data: st.DataObject
) -> None:
    exported = Catalogue.of(items)
    others = data.draw(item_lists())
    changed = {
        at: replace(other, item_id=items[at].item_id)
        for at, other in zip(data.draw(st.sets(st.integers(0, len(items) - 1))), others, strict=False)
    }
    late = [replace(item, item_id=f"late {at}") for at, item in enumerate(data.draw(item_lists()))]
    now_ms = data.draw(st.integers(0, 2**45))
    catalogue = exported.updated(late, (), changed=changed, now_ms=now_ms)
    present = {at: changed.get(at, item) for at, item in enumerate(items)}
    present |= {exported.first_new + at: item for at, item in enumerate(late)}
    assert {at: catalogue.item(at) for at in present} == present
    assert {at: catalogue.title(at) for at in present} == {at: item.title for at, item in present.items()}
    mask = catalogue.allowed({})
    assert [at for at in present if mask is None or mask[at]] == [
        at for at, item in present.items() if item.listed_at(now_ms)
    ]
    moments = {moment for item in present.values() for moment in (item.valid_from_ms, item.valid_until_ms)}
    assert catalogue.next_change_ms(now_ms) == min((m for m in moments if m is not None and m > now_ms), default=None)
    for name, facet in catalogue.facets.items():
        for value in {"a", "z", *(value for item in present.values() for value in item.facet(name))}:
            having = [at for at, item in present.items() if value in item.facet(name)]
            test = facet.of_any([value])
            assert test.items().tolist() == np.flatnonzero(test.mask(len(catalogue))).tolist() == having
            assert facet.knows(value) == bool(having) and test.size >= len(having)
            everything = np.arange(len(catalogue))
            assert np.flatnonzero(test.has(everything)).tolist() == having


def test_an_item_without_stock_is_not_listed() -> None:
    catalogue = Catalogue.of([CatalogueItem("a", stock=0), CatalogueItem("b", stock=3), CatalogueItem("c")])
    assert catalogue.allowed({}) is None and catalogue.restricted, "as exported, every item can be scored"
    mask = catalogue.updated((), ()).allowed({})
    assert mask is not None and mask.tolist() == [False, True, True]
    again = catalogue.updated((), (), changed={0: CatalogueItem("a", stock=2), 1: CatalogueItem("b", stock=0)})
    mask = again.allowed({})
    assert mask is not None and mask.tolist() == [True, False, True]
