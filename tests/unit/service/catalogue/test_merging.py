"""What an item is by all its sources, and where a new one belongs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.artifact.artifact import Artifact
from service.artifact.items.catalogue import Catalogue
from service.artifact.items.catalogue_item import CatalogueItem
from service.catalogue.assembly import Assembly, Build
from service.catalogue.merging import differing, merged
from service.catalogue.placing import Likeness
from service.catalogue.updates_file import NOTHING, NewItem, parse
from service.store.items import StoredItem

EXPORTED = Catalogue.of([CatalogueItem(f"e{n}", f"T{n}", ("a",), brand="x", price=1.0, stock=n) for n in range(3)])
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "title": st.sampled_from(["A", "B"]),
    "brand": st.sampled_from(["p", "q"]),
    "price": st.sampled_from([2.0, 3.0]),
    "stock": st.integers(0, 1),
    "in_stock": st.booleans(),
}
rows = st.fixed_dictionaries({}, optional=FIELDS)


def stored(fields: dict[str, Any], *, disabled: bool = False) -> StoredItem:
    return StoredItem("", 1, disabled, fields=fields)


@given(st.sampled_from(["e0", "e1", "new"]), rows | st.none(), rows | st.none(), st.booleans())
def test_each_field_is_that_of_the_first_source_that_says_it(
    item_id: str, row: dict[str, Any] | None, fields: dict[str, Any] | None, disabled: bool
) -> None:
    line = {"item_id": item_id, **(row or {}), **({"category": ["a"]} if item_id == "new" else {})}
    file = NOTHING if row is None else parse(orjson.dumps(line) + b"\n", EXPORTED)
    assert not file.faults
    record = None if fields is None else stored(fields, disabled=disabled)
    found = merged(EXPORTED, item_id, file, record)
    exported = EXPORTED.item(EXPORTED.index[item_id]) if item_id != "new" else CatalogueItem("new")
    sources: list[dict[str, Any]] = [fields or {}, row or {}]
    for name in ("title", "brand", "price"):
        wanted = next((source[name] for source in sources if name in source), getattr(exported, name))
        assert getattr(found.item.item, name) == wanted, name
    in_stock = next((source["in_stock"] for source in sources if "in_stock" in source), True)
    known = item_id != "new" or row is not None or bool(fields)
    assert found.hidden == ((disabled and record is not None) or not in_stock or not known)
    if fields and fields.get("in_stock") and "stock" not in fields:
        assert found.item.item.stock != 0, "whoever says that an item is there does not count pieces"


def test_a_record_of_another_release_hides_an_item_only_if_it_is_disabled() -> None:
    for disabled in (False, True):
        found = merged(EXPORTED, "e1", NOTHING, stored({"price": "much"}, disabled=disabled))
        assert found.item.item == EXPORTED.item(1) and found.hidden == disabled


@given(st.lists(st.tuples(st.sampled_from(["e0", "e1", "n"]), rows), max_size=4), st.data())
@settings(max_examples=30)
def test_what_differs_between_two_contents_is_enough_to_follow(
    said: list[tuple[str, dict[str, Any]]], data: st.DataObject
) -> None:
    def content(lines: list[tuple[str, dict[str, Any]]]) -> bytes:
        more = {"n": {"category": ["a"]}}
        return b"".join(orjson.dumps({"item_id": i, **row, **more.get(i, {})}) + b"\n" for i, row in lines)

    one = parse(content(said), EXPORTED)
    two = parse(content(data.draw(st.permutations(said))[: data.draw(st.integers(0, len(said)))]), EXPORTED)
    same = {"e0", "e1", "e2", "n"} - differing(one, two)
    assert all(merged(EXPORTED, i, one, None) == merged(EXPORTED, i, two, None) for i in same)


# -- places


@pytest.fixture(scope="module")
def exported(random_artifact: Path) -> Artifact:
    return Artifact.open(random_artifact)


def new(item_id: str, title: str | None = None, category: tuple[str, ...] = (), **more: Any) -> NewItem:
    return NewItem(CatalogueItem(item_id, title, category), **more)


def test_the_first_that_says_something_gives_a_place(exported: Artifact) -> None:
    likeness, catalogue = Likeness(exported), exported.catalogue
    known = catalogue.item(7)
    assert known.title is not None and known.category
    likeness.know_vector(3, (1.0, 0.0))
    likeness.know_vector(4, (0.0, 2.0))
    everything = new("n", known.title, known.category, like=("i5",), vector=(0.1, 3.0), text="a lamp")
    place = likeness.place(everything)
    assert place is not None and (place.by, place.nearest) == ("like", 5)
    for by, nearest, item in (
        ("vector", 4, new("v", known.title, known.category, vector=(0.1, 3.0), text="a lamp")),
        ("text", 7, new("t", known.title, known.category, text="a lamp")),
        ("category", None, new("c", known.title, known.category)),
        ("text", 7, new("w", known.title)),
        ("text", 7, new("o", known.title, vector=(1.0, 0.0, 0.0))),  # no vector of this length is known
    ):
        place = likeness.place(item)
        assert place is not None and place.by == by, by
        assert nearest is None or place.nearest == nearest
        assert np.isfinite(place.vector).all() and len(place.vector) == exported.item_table.shape[1]
    assert likeness.place(new("x", "unheard-of", ("nothing",))) is None
    with pytest.raises(ValueError, match="nothing known places"):
        likeness.of(new("x"))


def test_an_item_keeps_its_place_until_something_known_gives_it_another(exported: Artifact) -> None:
    likeness = Likeness(exported)
    before = likeness.place(new("n", like=("i5",)))
    assert likeness.place(new("n", "another title", like=("i5",))) is before
    assert likeness.place(new("n")) is before
    after = likeness.place(new("n", like=("i6",)))
    assert after is not None and after.nearest == 6


def test_stored_items_come_change_and_go_in_the_catalogue_that_is_served(exported: Artifact) -> None:
    assembly, first = Assembly(exported), exported.catalogue.first_new
    records = {
        "n1": stored({"title": "One", "like": ["i3"]}),
        "i5": stored({"title": "Five", "vector": [1.0, 0.0]}),
        "n2": stored({"title": "zzz", "vector": [2.0, 0.1]}),
        "n3": stored({"title": "no place"}),
        "i6": stored({}, disabled=True),
    }
    assembly.apply(list(records), NOTHING, records)
    live = assembly.live(Build(exported))
    catalogue = live.artifact.catalogue
    assert catalogue.title(5) == "Five" and catalogue.index["n1"] == first and "n3" not in catalogue.index
    assert live.placed_by[first] == "like" and live.stand_in[catalogue.index["n2"]] == 5
    assert catalogue.in_stock is not None and np.flatnonzero(~catalogue.in_stock).tolist()[0] == 6
    assert live.delta is not None and live.delta.items.tolist() == [first, first + 1]
    later = {"i6": stored({}), "n1": stored({"title": "One", "like": ["i4"], "in_stock": False})}
    assembly.apply(["i5", "i6", "n1", "n2"], NOTHING, later)
    after = assembly.live(Build(exported)).artifact.catalogue
    assert after.title(5) == exported.catalogue.title(5)
    assert after.in_stock is not None and after.in_stock[6] and not after.in_stock[first : first + 2].any()
    # What was handed over before is as it was.
    assert catalogue.title(5) == "Five" and live.stand_in[first] == 3
