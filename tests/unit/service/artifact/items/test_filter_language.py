"""The filter language against a reference in plain Python, which looks at one item after the other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.artifact.items.catalogue import Catalogue
from service.artifact.items.catalogue_item import CatalogueItem, categories_of
from service.artifact.items.filter_conditions import Condition
from service.artifact.items.item_filters import filter_key

NAMES = ["Fashion", "Women", "Shoes", "Sports", "Running", "Sale"]
PATHS = [
    ["Fashion", "Women", "Shoes"],
    ["Sports", "Running", "Shoes"],
    ["Fashion", "Sale"],
    ["Sale", "Shoes"],
    ["Women"],
]
WANTED = [*NAMES, *(" > ".join(path[:end]) for path in PATHS for end in range(2, len(path) + 1)), "Shoes > Women", "no"]

categories = st.lists(st.sampled_from(NAMES) | st.sampled_from(PATHS), max_size=3).map(categories_of)
items = st.builds(
    lambda fields, **other: CatalogueItem("", **fields, **other),
    fields=categories,
    brand=st.none() | st.sampled_from("xyz"),
    attributes=st.lists(st.sampled_from("abc"), max_size=3, unique=True).map(tuple),
    currency=st.none() | st.sampled_from(["EUR", "JPY"]),
    price=st.none() | st.sampled_from([0.0, 1.5, 10.0, 99.5]),
    stock=st.none() | st.integers(0, 3),
)


def sets(values: list[str]) -> st.SearchStrategy[Any]:
    some = st.lists(st.sampled_from(values), min_size=1, max_size=3)
    parts = st.fixed_dictionaries({}, optional={"any": some, "all": some, "none": some})
    return some | parts.filter(bool)


bounds = st.dictionaries(
    st.sampled_from(["gte", "gt", "lte", "lt"]), st.sampled_from([-1.0, 0.0, 1.5, 2, 50.0]), min_size=1
)
filters = st.fixed_dictionaries(
    {},
    optional={
        "category": sets(WANTED),
        "brand": sets([*"xyz", "no"]),
        "attribute": sets([*"abc", "no"]),
        "currency": sets(["EUR", "JPY", "CHF"]),
        "price": bounds,
        "stock": bounds,
    },
)


def has(item: CatalogueItem, name: str, value: str) -> bool:
    if name != "category":
        return value in item.facet(name)
    below = any(path == value or path.startswith(value + " > ") for path in item.paths) and " > " in value
    return value in item.category or below


def meets(item: CatalogueItem, name: str, said: Any) -> bool:
    if name in ("price", "stock"):
        number = getattr(item, name)
        compare = {"gte": float.__ge__, "gt": float.__gt__, "lte": float.__le__, "lt": float.__lt__}
        return number is not None and all(compare[one](float(number), float(bound)) for one, bound in said.items())
    said = said if isinstance(said, Mapping) else {"any": said}
    return (
        ("any" not in said or any(has(item, name, value) for value in said["any"]))
        and all(has(item, name, value) for value in said.get("all", ()))
        and not any(has(item, name, value) for value in said.get("none", ()))
    )


def served(exported: list[CatalogueItem], late: list[CatalogueItem], changed: dict[int, CatalogueItem]) -> Catalogue:
    catalogue = Catalogue.of([replace(item, item_id=f"i{at}") for at, item in enumerate(exported)])
    named = [replace(item, item_id=f"n{at}") for at, item in enumerate(late)]
    return catalogue.updated(
        named, (), changed={at: replace(item, item_id=f"i{at}") for at, item in changed.items() if at < len(exported)}
    )


@given(
    exported=st.lists(items, min_size=1, max_size=12),
    late=st.lists(items, max_size=3),
    changed=st.dictionaries(st.integers(0, 11), items, max_size=3),
    wanted=filters,
)
@settings(max_examples=60, deadline=None)
def test_a_filter_allows_the_items_that_a_reference_allows(
    exported: list[CatalogueItem], late: list[CatalogueItem], changed: dict[int, CatalogueItem], wanted: dict[str, Any]
) -> None:
    catalogue = served(exported, late, changed)
    real = [at for at, item_id in enumerate(catalogue.item_ids) if item_id]
    present = {at: catalogue.item(at) for at in real}
    matching = [at for at in real if all(meets(present[at], name, said) for name, said in wanted.items())]
    expected = [at for at in matching if present[at].stock != 0]
    found = catalogue.filter(wanted)
    assert np.array(real)[found[np.array(real)]].tolist() == expected
    mask = catalogue.allowed(wanted)
    assert [at for at in real if mask is None or mask[at]] == expected
    assert mask is None or not mask[catalogue.n_exported : catalogue.first_new].any()
    if (few := found.few()) is not None:
        assert few.tolist() == expected
    # What is left of the filter means the same, and is its own key.
    if not found.nothing:
        again = catalogue.matches(found.values)
        assert [at for at in real if again is None or again[at]] == matching
        assert catalogue.filter(found.values).key == found.key
    else:
        assert not matching
    known = {(name, value) for item in present.values() for name in ("brand", "attribute", "currency")
             for value in item.facet(name)}  # fmt: skip
    for name, said in wanted.items():
        if name not in ("category", "price", "stock"):
            values = [v for part in (said.values() if isinstance(said, Mapping) else [said]) for v in part]
            named = set(catalogue.unknown({name: said}))
            assert named == {f"{name}={value}" for value in values if (name, value) not in known}
        elif name == "category":
            for text in catalogue.unknown({name: said}):
                assert not any(has(item, name, text.removeprefix("category=")) for item in present.values())


def test_a_plain_list_means_what_it_meant() -> None:
    catalogue = Catalogue.of(
        [CatalogueItem("a", category=("War", "Drama"), brand="x"), CatalogueItem("b", category=("War > Drama",))]
    )
    for values, expected in ((["War"], [0]), (["Drama", "War > Drama"], [0, 1]), (["War > Drama"], [1])):
        mask = catalogue.allowed({"category": values})
        assert mask is not None and np.flatnonzero(mask).tolist() == expected
        assert catalogue.filter({"category": values}).values == {"category": tuple(sorted(values))}
    assert filter_key({"brand": ["x", "y", "x"]}) == filter_key({"brand": {"any": ["y", "x"]}})


def test_a_path_is_not_another_path_with_the_same_last_step() -> None:
    women, running = CatalogueItem("w", **_on(PATHS[0])), CatalogueItem("r", **_on(PATHS[1]))
    catalogue = Catalogue.of([women, running])
    for wanted, expected in (
        ("Shoes", ["w", "r"]),
        ("Fashion > Women > Shoes", ["w"]),
        ("Fashion > Women", ["w"]),
        ("Sports  >  Running", ["r"]),
        ("Women > Shoes", []),
    ):
        mask = catalogue.allowed({"category": [wanted]})
        assert mask is not None and [catalogue.item_id(at) for at in np.flatnonzero(mask).tolist()] == expected
        assert list(catalogue.unknown({"category": [wanted]})) == ([] if expected else [f"category={wanted}"])


def _on(path: list[str]) -> dict[str, Any]:
    return dict(categories_of([path]))


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"colour": ["red"]}, "unknown filter field 'colour'"),
        ({"price": ["10"]}, "takes bounds"),
        ({"price": {"any": ["10"]}}, "takes bounds"),
        ({"brand": {"gte": 1}}, "takes values"),
        ({"brand": {}}, "takes values"),
    ],
)
def test_a_condition_that_a_field_does_not_take_is_refused(wanted: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Catalogue.of([CatalogueItem("a", price=1.0, brand="x")]).filter(wanted)


@given(
    wanted=bounds,
    low=st.floats(-2, 60, allow_nan=False),
    width=st.floats(0, 10),
    share=st.floats(0, 1),
)
@settings(max_examples=50, deadline=None)
def test_bounds_that_a_number_keeps_are_held_by_every_range_around_it(
    wanted: dict[str, float], low: float, width: float, share: float
) -> None:
    number = min(low + share * width, low + width)
    if meets(CatalogueItem("", price=number), "price", wanted):
        assert Condition.of("price", wanted).holds(low, low + width)


def test_bounds_outside_all_numbers_allow_nothing_and_are_named() -> None:
    catalogue = Catalogue.of([CatalogueItem("a", price=5.0), CatalogueItem("b"), CatalogueItem("c", price=9.0)])
    found = catalogue.filter({"price": {"gte": 10}})
    assert found.nothing and list(catalogue.unknown({"price": {"gte": 10, "lt": 20}})) == ["price gte 10 lt 20"]
    assert list(catalogue.unknown({"price": {"gt": 5}, "stock": {"gte": 1}})) == ["stock gte 1"]
    assert catalogue.filter({"stock": {"gte": 1}}).nothing
    mask = catalogue.allowed({"price": {"lte": 5.0}})
    assert mask is not None and mask.tolist() == [True, False, False]
    assert catalogue.filter({"price": {"lte": math.inf}}).few() is None, "a range is no list of items"


def test_values_that_only_forbid_and_that_no_item_has_are_no_filter() -> None:
    catalogue = Catalogue.of([CatalogueItem("a", brand="x")])
    found = catalogue.filter({"brand": {"none": ["no"]}})
    assert not found.nothing and not found.fields and found.values == {} and found.key == filter_key({})
    assert catalogue.allowed({"brand": {"none": ["no"]}}) is None
