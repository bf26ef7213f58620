"""A catalogue that follows changes one after the other, against one that is made anew from all of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from service.artifact.items.catalogue import Catalogue
from service.artifact.items.catalogue_changes import following
from service.artifact.items.catalogue_item import CURRENCY, FACETS, NUMBERS, PATH, CatalogueItem, categories_of

names = st.sampled_from(["a", "b", "c"])


@st.composite
def described(draw: st.DrawFn, item_id: str) -> CatalogueItem:
    return CatalogueItem(
        item_id,
        draw(st.none() | names),
        brand=draw(st.none() | names),
        attributes=tuple(draw(st.lists(names, max_size=2))),
        price=draw(st.none() | st.sampled_from([1.0, 2.0])),
        currency=draw(st.none() | st.just("EUR")),
        stock=draw(st.none() | st.integers(0, 1)),
        valid_from_ms=draw(st.none() | st.integers(1, 3)),
        valid_until_ms=draw(st.none() | st.integers(4, 6)),
        **categories_of(draw(st.lists(names | st.sampled_from(["a > b", "a > b > c"]), max_size=2))),  # type: ignore[arg-type]
    )


def same(one: Catalogue, other: Catalogue) -> None:
    assert list(one.items) == list(other.items) and list(one.item_ids) == list(other.item_ids)
    assert dict(one.index) == dict(other.index) and one.more == other.more
    assert {index: one.changed[index] for index in sorted(one.changed)} == dict(other.changed)
    for name in (*FACETS, PATH, CURRENCY):
        for value in ("a", "b", "c", "EUR", "a > b", "a > b > c"):
            assert one.facets[name].items(value).tolist() == other.facets[name].items(value).tolist(), (name, value)
            assert one.facets[name].knows(value) == other.facets[name].knows(value), (name, value)
        assert one.facets[name].n_values() == other.facets[name].n_values()
    for name in NUMBERS:
        mine, theirs = (c.numbers.get(name, np.full(len(other), np.nan)) for c in (one, other))
        assert np.array_equal(mine, theirs, equal_nan=True), name
    several: list[dict[str, Any]] = [
        {"price": {"gte": 1}}, {"category": ["a > b"], "currency": {"none": ["EUR"]}}, {"brand": ["a"]},
    ]  # fmt: skip
    for wanted in several:
        masks = [catalogue.allowed(wanted) for catalogue in (one, other)]
        assert masks[0] is not None and masks[1] is not None and masks[0].tolist() == masks[1].tolist(), wanted
    assert (one.in_stock is None) == (other.in_stock is None)
    assert one.in_stock is None or np.array_equal(one.in_stock, other.in_stock)  # type: ignore[arg-type]


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_following_changes_ends_where_all_of_them_lead(data: st.DataObject) -> None:
    exported = Catalogue.of([data.draw(described(str(n))) for n in range(4)])
    catalogue, changed, more, gone = exported, dict[int, CatalogueItem](), list[CatalogueItem](), set[int]()
    for _ in range(data.draw(st.integers(1, 4))):
        step: dict[int, CatalogueItem] = {}
        for index in data.draw(st.lists(st.integers(0, 3), max_size=3, unique=True)):
            back = data.draw(st.booleans())
            step[index] = exported.item(index) if back else data.draw(described(str(index)))
            changed[index] = step[index]
        for wanted in data.draw(st.lists(st.integers(0, 2), max_size=2, unique=True)):
            place = min(wanted, len(more))
            item = data.draw(described(f"n{place}"))
            more[place : place + 1] = [item]
            step[exported.first_new + place] = item
        gone = set(data.draw(st.lists(st.sampled_from([*range(4), *step]), max_size=2)))
        now_ms = data.draw(st.sampled_from([None, 0, 2, 5, 9]))
        catalogue = following(catalogue, step, np.array(sorted(gone), np.int64), now_ms=now_ms)
        real = {index: item for index, item in sorted(changed.items()) if item != exported.item(index)}
        same(catalogue, exported.updated(more, sorted(gone), changed=real, now_ms=now_ms))
