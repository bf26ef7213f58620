"""Stock and new items while the model is served: the file, the places of new items, what is handed over."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.artifact.artifact import Artifact
from service.artifact.items.catalogue import Catalogue
from service.artifact.items.catalogue_item import CatalogueItem
from service.artifact.trie import Trie
from service.catalogue import assembly
from service.catalogue.new_item_paths import FreePaths, with_paths
from service.catalogue.updates import CatalogueUpdates
from service.catalogue.updates_file import UpdatesFile, parse
from service.engine.live_catalogue import LiveCatalogue
from tests.support.clock import FakeClock
from tests.support.networks import random_codes

EXPORTED = Catalogue.of(
    [CatalogueItem(str(n), f"T{n}", ("fiction", "crime") if n % 4 == 0 else ("fiction",)) for n in range(40)]
)


def lines(*rows: object) -> bytes:
    return b"".join((row if isinstance(row, bytes) else orjson.dumps(row)) + b"\n" for row in rows)


@pytest.fixture(scope="module")
def exported(random_artifact: Path) -> Artifact:
    return Artifact.open(random_artifact)


class Served:
    """Keeps what was handed over."""

    def __init__(self) -> None:
        self.lives: list[LiveCatalogue] = []

    def __call__(self, live: LiveCatalogue) -> None:
        self.lives.append(live)

    @property
    def now(self) -> LiveCatalogue:
        return self.lives[-1]


# -- the file


def test_stock_and_new_items_are_read_line_by_line_the_last_word_wins() -> None:
    found = parse(
        lines(
            {"item_id": "3", "in_stock": False},
            {"item_id": "4", "in_stock": False},
            {"item_id": "n1", "title": "New", "category": ["fiction"], "like": ["5", "no such item"]},
            {"item_id": "4", "in_stock": True},
            {"item_id": "n1", "in_stock": False},
            {"item_id": "n2", "category": ["unheard of", "crime"], "in_stock": True},
        ),
        EXPORTED,
    )
    assert not found.faults
    assert found.out_of_stock == {"3", "n1"}
    assert list(found.new) == ["n1", "n2"]
    assert found.new["n1"].like == ("5",) and found.new["n1"].item.title == "New"
    assert found.new["n2"].like == () and found.new["n2"].item.category == ("unheard of", "crime")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "no JSON"),
        (b"[1]", "no object"),
        ({"in_stock": False}, "needs an item_id"),
        ({"item_id": "a\nb", "like": ["1"]}, "control characters"),
        ({"item_id": "x" * 129, "like": ["1"]}, "1 to 128"),
        ({"item_id": 7, "in_stock": False}, "needs an item_id"),
        ({"item_id": "1", "in_stock": "no"}, "true or false"),
        ({"item_id": "1", "colour": "red"}, "unknown fields: colour"),
        ({"item_id": "1", "like": ["2"]}, "a place of its own"),
        ({"item_id": "1", "stock": False}, "stock is a whole number"),
        ({"item_id": "1", "price": -1}, "price is a number from 0"),
        ({"item_id": "1", "currency": "euro"}, "currency is three capital letters"),
        ({"item_id": "1", "url": "javascript:alert(1)"}, "url is an address"),
        ({"item_id": "1", "image": "https://a b"}, "image is an address"),
        ({"item_id": "1", "valid_from": "2026-01-01"}, "valid_from cannot be used: a time without a zone"),
        ({"item_id": "1", "valid_from": 2_000_000_000, "valid_until": 1_000_000_000}, "later than valid_from"),
        ({"item_id": "1", "category": [["a"] * 17]}, "a list of 1 to 16 steps"),
        ({"item_id": "nobody", "in_stock": False}, "neither exported nor described"),
        ({"item_id": "n", "title": 3, "like": ["1"]}, "title is a text"),
        ({"item_id": "n", "like": "1"}, "like is a list"),
        ({"item_id": "n", "title": "alone"}, "nothing known"),
        ({"item_id": "n", "like": ["unknown"], "category": ["unheard of"]}, "nothing known"),
    ],
)
def test_a_bad_line_is_reported_with_its_number_and_harms_no_other(line: object, message: str) -> None:
    found = parse(lines({"item_id": "3", "in_stock": False}, line, {"item_id": "5", "in_stock": False}), EXPORTED)
    assert [fault.line for fault in found.faults] == [2]
    assert message in found.faults[0].message
    assert found.out_of_stock == {"3", "5"}


def test_lines_change_fields_of_exported_items_and_describe_those_of_new_ones() -> None:
    found = parse(
        lines(
            {"item_id": "3", "price": 19.9, "currency": "EUR", "valid_until": "2026-12-24T00:00:00Z"},
            {"item_id": "4", "title": "Renamed", "category": ["fiction > crime", ["Sale", "Books"]]},
            {"item_id": "4", "in_stock": False},
            {"item_id": "5", "price": 1},
            {"item_id": "5", "stock": 0, "price": None},
            {"item_id": "n1", "category": [["fiction", "crime"]], "url": "/n1", "image": "https://x/y.png", "stock": 3},
        ),
        EXPORTED,
    )
    assert not found.faults and found.out_of_stock == {"4"}
    assert found.changed == {
        "3": {"price": 19.9, "currency": "EUR", "valid_until_ms": 1_798_070_400_000},
        "4": {
            "title": "Renamed",
            "category": ("fiction", "crime", "Sale", "Books"),
            "paths": ("fiction > crime", "Sale > Books"),
        },
        "5": {"stock": 0, "price": None},
    }
    assert found.new["n1"].item == CatalogueItem(
        "n1", category=("fiction", "crime"), paths=("fiction > crime",), stock=3, url="/n1", image="https://x/y.png"
    )


def test_an_item_without_stock_is_listed_again_when_a_line_says_so() -> None:
    exported = Catalogue.of([CatalogueItem("a", category=("c",), stock=0), CatalogueItem("b", stock=4)])
    assert parse(lines({"item_id": "a", "in_stock": True}), exported).changed == {"a": {"stock": None}}
    assert parse(lines({"item_id": "b", "in_stock": True}), exported).changed == {}
    again = parse(lines({"item_id": "n", "category": ["c"], "stock": 0}, {"item_id": "n", "in_stock": True}), exported)
    assert again.new["n"].item.stock is None and not again.out_of_stock


def test_a_plain_list_of_levels_is_a_path_where_the_catalogue_knows_it() -> None:
    exported = Catalogue.of([CatalogueItem("a", category=("Books", "Crime"), paths=("Books > Crime",))])
    found = parse(
        lines(
            {"item_id": "n1", "category": ["Books", "Crime", "Noir"]}, {"item_id": "n2", "category": ["Crime", "Books"]}
        ),
        exported,
    )
    assert found.new["n1"].item.paths == ("Books > Crime > Noir",)
    assert found.new["n2"].item.paths == () and found.new["n2"].item.category == ("Crime", "Books")


def test_a_line_that_is_still_being_written_is_no_fault() -> None:
    found = parse(lines({"item_id": "3", "in_stock": False}) + b'{"item_id": "4", "in_st', EXPORTED)
    assert found.out_of_stock == {"3"} and not found.faults


BEFORE = lines(
    {"item_id": "3", "in_stock": False},
    {"item_id": "n1", "title": "New", "like": ["5"], "in_stock": False},
    {"item_id": "n2", "like": ["6"]},
)


@pytest.mark.parametrize(
    ("line", "out_of_stock", "new"),
    [
        ({"item_id": "3", "in_stock": "no"}, {"3"}, []),  # the lines of the new items are gone
        (b'{"item_id": "3", "in_stock": fal', {"3"}, []),
        ({"item_id": "n1", "title": 3, "like": ["1"]}, {"n1"}, ["n1"]),
        ({"item_id": "n2", "like": "1"}, set(), ["n2"]),
        ({"item_id": "5", "in_stock": 0}, set(), []),  # it was in stock, and stays so
        (b"}{", {"3", "n1"}, ["n1", "n2"]),  # nobody can tell which item this is about
        (b'{"item_id": 3, "in_stock": false}', {"3", "n1"}, ["n1", "n2"]),
    ],
)
def test_a_bad_line_leaves_its_item_as_it_was(line: object, out_of_stock: set[str], new: list[str]) -> None:
    before = parse(BEFORE, EXPORTED)
    found = parse(lines(line), EXPORTED, before)
    assert len(found.faults) == 1
    assert found.out_of_stock == out_of_stock and list(found.new) == new
    again = parse(lines(line), EXPORTED, found)  # nor does reading the bad line a second time change it
    assert again == found
    # Another line about the item counts, before or after the bad one.
    for both in (lines(line, {"item_id": "3", "in_stock": True}), lines({"item_id": "3", "in_stock": True}, line)):
        assert "3" not in parse(both, EXPORTED, before).out_of_stock


def test_a_bad_line_leaves_the_fields_of_an_exported_item_as_they_were() -> None:
    before = parse(lines({"item_id": "7", "price": 5}, {"item_id": "8", "price": 6}), EXPORTED)
    assert parse(lines({"item_id": "7", "price": "dear"}), EXPORTED, before).changed == {"7": {"price": 5.0}}
    assert parse(lines(b"}{", {"item_id": "8", "price": 7}), EXPORTED, before).changed == {
        "7": {"price": 5.0}, "8": {"price": 7.0},
    }  # fmt: skip


def test_a_file_that_is_being_written_puts_nothing_back_in_stock() -> None:
    before = parse(BEFORE, EXPORTED)
    for size in range(1, len(BEFORE)):
        if BEFORE[size - 1 : size] not in b"\n}":  # a file may end after a whole line
            found = parse(BEFORE[:size], EXPORTED, before)
            assert found.out_of_stock == before.out_of_stock and found.new == before.new and not found.faults


def test_the_service_remembers_what_a_bad_line_said_before(exported: Artifact, tmp_path: Path) -> None:
    served, path = Served(), tmp_path / "updates.jsonl"
    updates = CatalogueUpdates(exported, path, served)
    one, other = exported.catalogue.item_ids[3:5]
    gone = {"item_id": other, "in_stock": False}
    for row, expected in (
        ({"item_id": one, "in_stock": False}, False),
        ({"item_id": one, "in_stock": "sold out"}, False),
        (gone, True),
    ):
        path.write_bytes(lines(row, gone))
        updates.poll()
        allowed = served.now.artifact.catalogue.allowed({})
        assert allowed is not None and allowed[exported.catalogue.index[one]] == expected


@given(st.lists(st.binary(max_size=40) | st.builds(lambda n: lines({"item_id": str(n)}), st.integers(0, 50))))
@settings(max_examples=40, deadline=None)
def test_no_file_breaks_the_parser(parts: list[bytes]) -> None:
    found = parse(b"\n".join(parts), EXPORTED)
    assert set(found.out_of_stock) <= set(EXPORTED.index)


def test_a_file_is_read_when_it_has_changed(tmp_path: Path) -> None:
    file = UpdatesFile(tmp_path / "updates.jsonl")
    assert file.changed() is None
    file.path.write_bytes(b"a\n")
    assert file.changed() == b"a\n"
    assert file.changed() is None
    with file.path.open("ab") as out:
        out.write(b"b\n")
    assert file.changed() == b"a\nb\n"
    (tmp_path / "other").write_bytes(b"c\nd\n")
    (tmp_path / "other").rename(file.path)
    assert file.changed() == b"c\nd\n"
    file.path.unlink()
    assert file.changed() is None, "what was read stays in force"


# -- places


@given(seed=st.integers(0, 99), sizes=st.sampled_from([(64,), (8, 8), (4, 4, 6)]), n_new=st.integers(1, 24))
@settings(max_examples=40, deadline=None)
def test_new_items_get_free_paths_and_the_rest_of_the_trie_stays(seed: int, sizes: tuple[int, ...], n_new: int) -> None:
    rng = np.random.default_rng(seed)
    codes = random_codes(rng, 40, sizes)
    trie = Trie.build(codes)
    places = FreePaths(trie, sizes)
    likes = rng.integers(0, 40, n_new).tolist()
    paths = [places.beside(like) for like in likes]
    given = [path for path in paths if path is not None]
    assert len(given) == n_new, "there is room"
    taken = {tuple(row) for row in codes.tolist()}
    assert len(set(given) | taken) == 40 + n_new, "every path is free and given once"
    assert all(0 <= token < size for path in given for token, size in zip(path, sizes, strict=True))
    grown = with_paths(trie, given, range(42, 42 + n_new))
    assert grown.n_items == 40 + n_new and max(grown.branching) <= max(sizes)
    by_item = dict(zip(grown.leaf_item.tolist(), map(tuple, grown.paths().tolist()), strict=True))
    assert all(by_item[item] == tuple(row) for item, row in enumerate(codes.tolist()))
    assert [by_item[42 + at] for at in range(n_new)] == given


def test_a_new_item_shares_its_likes_prefix_while_there_is_room() -> None:
    codes = np.array([[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0]])
    places = FreePaths(Trie.build(codes), (2, 3, 3))
    assert places.beside(0) == (0, 0, 2)
    assert places.beside(0) == (0, 2, 0), "the node is full: a new one beside it"
    assert places.beside(3) == (1, 0, 1)


def test_an_item_without_room_has_no_place() -> None:
    places = FreePaths(Trie.build(np.array([[0, 0], [0, 1], [1, 0]])), (2, 2))
    assert places.beside(0) == (1, 1)
    assert places.beside(0) is None


# -- what is served


def test_stock_and_new_items_are_served_at_once_and_taken_into_the_trie_later(
    exported: Artifact, tmp_path: Path
) -> None:
    file, served, clock = tmp_path / "updates.jsonl", Served(), FakeClock()
    updates = CatalogueUpdates(exported, file, served, rebuild_every_s=30.0, clock=clock)
    assert not updates.poll() and not served.lives and not updates.due
    file.write_bytes(lines({"item_id": "i3", "in_stock": False}, {"item_id": "n1", "title": "N", "like": ["i5", "i7"]}))
    assert updates.poll() and not updates.poll()
    live, first = served.now, exported.catalogue.first_new
    in_stock = live.artifact.catalogue.allowed({})
    assert in_stock is not None and not in_stock[3] and in_stock[first]
    assert live.delta is not None and live.delta.items.tolist() == [first]
    likes = exported.item_table[[5, 7]]
    mean, length = likes.mean(axis=0), np.linalg.norm(likes, axis=1).mean()
    np.testing.assert_allclose(live.delta.vectors[0], mean * (length / np.linalg.norm(mean)), rtol=1e-5)
    assert live.stand_in == {first: 5}
    assert live.artifact.trie is exported.trie
    events = live.artifact.vocabulary.events(["n1", "i3", "?"], ["click"] * 3, [1, 2, 3])
    assert events.item.tolist() == [40, 3, 40], "unknown to the encoder until it has a row"
    assert live.artifact.vocabulary.start_item == exported.vocabulary.start_item

    assert updates.due
    updates.rebuild()
    built = served.now
    assert built.delta is None and not updates.due
    assert built.artifact.trie.n_items == 41 and first in built.artifact.trie.leaf_item
    assert built.artifact.vocabulary.events(["n1"], ["click"], [1]).item.tolist() == [first]
    np.testing.assert_array_equal(built.artifact.item_table[first], live.delta.vectors[0])
    np.testing.assert_array_equal(built.artifact.item_table[:first], exported.item_table)
    beside = built.artifact.trie.paths()[built.artifact.trie.item_leaf[[5, first]]]
    assert (beside[0, :-1] == beside[1, :-1]).all()
    still_out = built.artifact.catalogue.allowed({})
    assert still_out is not None and not still_out[3]


def test_an_index_never_changes_its_meaning(exported: Artifact, tmp_path: Path) -> None:
    file, served, clock = tmp_path / "updates.jsonl", Served(), FakeClock()
    updates = CatalogueUpdates(exported, file, served, rebuild_every_s=30.0, clock=clock)
    first = exported.catalogue.first_new
    file.write_bytes(lines({"item_id": "n1", "like": ["i5"]}, {"item_id": "n2", "like": ["i6"]}))
    updates.poll()
    updates.rebuild()
    file.write_bytes(lines({"item_id": "n3", "like": ["i7"]}, {"item_id": "n2", "like": ["i6"], "title": "now named"}))
    updates.poll()
    catalogue = served.now.artifact.catalogue
    assert [catalogue.item_id(at) for at in range(first, first + 3)] == ["n1", "n2", "n3"]
    in_stock = catalogue.allowed({})
    assert in_stock is not None and in_stock[first:].tolist() == [False, True, True], "what leaves the file is gone"
    assert catalogue.title(first + 1) == "now named"
    assert served.now.delta is not None and served.now.delta.items.tolist() == [first + 2]
    assert not updates.due, "the last build is too fresh"
    clock.advance(30.0)
    assert updates.due
    updates.rebuild()
    assert served.now.delta is None and served.now.artifact.trie.n_items == 43


def test_an_item_of_a_known_category_stands_in_the_middle_of_its_most_specific_one(
    exported: Artifact, tmp_path: Path
) -> None:
    rows = {value: exported.catalogue.with_category(value) for value in "abcd"}
    rarest = min(rows, key=lambda value: len(rows[value]))
    file, served = tmp_path / "updates.jsonl", Served()
    file.write_bytes(lines({"item_id": "n1", "category": [*rows, "unheard of"]}))
    CatalogueUpdates(exported, file, served).poll()
    assert served.now.delta is not None
    np.testing.assert_allclose(
        served.now.delta.vectors[0], exported.item_table[rows[rarest]].mean(axis=0), rtol=1e-5, atol=1e-6
    )
    assert next(iter(served.now.stand_in.values())) in rows[rarest]


def test_more_new_items_than_the_table_holds_wait_for_the_rebuild(
    exported: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assembly, "MOST_WAITING", 3)
    file, served = tmp_path / "updates.jsonl", Served()
    file.write_bytes(lines(*({"item_id": f"n{n}", "like": [f"i{n}"]} for n in range(5))))
    updates = CatalogueUpdates(exported, file, served)
    updates.poll()
    first = exported.catalogue.first_new
    assert served.now.delta is not None and served.now.delta.items.tolist() == [first, first + 1, first + 2]
    updates.rebuild()
    assert served.now.delta is None and served.now.artifact.trie.n_items == 45


def test_the_loop_serves_changes_and_rebuilds_by_itself(exported: Artifact, tmp_path: Path) -> None:
    file, served = tmp_path / "updates.jsonl", Served()
    updates = CatalogueUpdates(exported, file, served)

    async def follow() -> None:
        loop = asyncio.create_task(updates.run(poll_s=0.01))
        file.write_bytes(lines({"item_id": "n1", "like": ["i5"]}))
        until = time.monotonic() + 20
        while not (served.lives and served.now.artifact.trie.n_items == 41):
            assert time.monotonic() < until and not loop.done()
            await asyncio.sleep(0.01)
        loop.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loop

    asyncio.run(follow())


def test_an_item_is_listed_inside_its_window_alone_and_each_change_is_served(
    exported: Artifact, tmp_path: Path
) -> None:
    file, served, wall = tmp_path / "updates.jsonl", Served(), FakeClock(1_000_000_000.0)
    opens, closes = exported.catalogue.item_ids[3:5]
    file.write_bytes(
        lines(
            {"item_id": opens, "valid_from": 1_000_000_010},
            {"item_id": closes, "valid_until": 1_000_000_020.0},
            {"item_id": "n1", "like": [opens], "valid_from": 1_000_000_010, "valid_until": 1_000_000_030},
        )
    )
    updates = CatalogueUpdates(exported, file, served, wall_clock=wall)
    assert updates.poll()

    def listed() -> set[str]:
        catalogue = served.now.artifact.catalogue
        mask = catalogue.allowed({})
        return {one for one in (opens, closes, "n1") if mask is None or mask[catalogue.index[one]]}

    assert listed() == {closes}
    for now, expected in ((9.999, None), (10.0, {opens, closes, "n1"}), (20.0, {opens, "n1"}), (30.0, {opens})):
        wall.now = 1_000_000_000.0 + now
        assert updates.turned == (expected is not None)
        if expected is not None:
            updates.turn()
            assert listed() == expected
    assert served.now.artifact.catalogue.next_change_ms(wall.now * 1000) is None


def test_the_loop_opens_a_window_without_a_file(exported: Artifact) -> None:
    served, wall, opened = Served(), FakeClock(1_000_000_000.0), threading.Event()
    catalogue = exported.catalogue
    items = [
        replace(item, valid_from_ms=1_000_000_005_000) if at == 3 else item for at, item in enumerate(catalogue.items)
    ]
    timed = exported.updated(Catalogue.of(items), exported.trie, exported.item_table)
    assert timed.catalogue.restricted and not catalogue.restricted

    def serve(live: LiveCatalogue) -> None:
        served(live)
        if len(served.lives) == 2:
            opened.set()

    updates = CatalogueUpdates(timed, None, serve, wall_clock=wall)
    updates.turn()

    async def until_opened() -> None:
        running = asyncio.create_task(updates.run(poll_s=0.001))
        wall.advance(5.0)
        try:
            assert await asyncio.to_thread(opened.wait, 60)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(until_opened())
    before, after = (live.artifact.catalogue.allowed({}) for live in served.lives[:2])
    assert before is not None and np.flatnonzero(~before).tolist() == [3] and after is None
