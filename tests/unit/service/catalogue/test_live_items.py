"""The copy of the stored items: it follows changes, notices what it cannot follow, and tells who observes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.catalogue.live_items import LiveItems
from service.common.errors import StoreUnavailable
from service.metrics.service_metrics import Metrics
from tests.support.aio import asynchronous, eventually
from tests.support.item_changes import ItemsInMemory


class Copy:
    """A copy, and what its observer was told."""

    def __init__(self) -> None:
        self.store = ItemsInMemory()
        self.live = LiveItems(self.store, Metrics())
        self.told: list[set[str]] = []
        self.unsubscribe = self.live.subscribe(lambda ids: self.told.append(set(ids)))

    def titles(self) -> dict[str, object]:
        assert self.live.ids == sorted(self.live.records)
        return {item_id: record.fields["title"] for item_id, record in self.live.records.items()}


@asynchronous
async def test_a_copy_reads_only_what_has_changed() -> None:
    copy = Copy()
    assert not await copy.live.once()
    for n in range(1100):
        copy.store.put(f"i{n}", title=n)
    assert await copy.live.once()
    assert len(copy.titles()) == 1100 and list(copy.live.ids_after("i998")) == ["i999"]
    copy.told.clear()
    copy.store.put("i7", title="new", disabled=True)
    copy.store.delete("i8")
    reads = copy.store.reads
    assert await copy.live.once()
    assert copy.store.reads == reads + 1
    assert copy.told == [{"i7", "i8"}]
    assert copy.live.records["i7"].disabled and "i8" not in copy.titles()
    copy.unsubscribe()
    copy.store.put("i9", title="unheard")
    assert await copy.live.once() and len(copy.told) == 1


@asynchronous
async def test_a_copy_that_cannot_follow_reads_everything_anew() -> None:
    copy = Copy()
    for name in ("a", "b", "c"):
        copy.store.put(name, title=name)
    await copy.live.once()
    copy.store.put("b", title="B")
    copy.store.delete("a", forgotten=True)
    copy.told.clear()
    assert await copy.live.once()
    assert copy.titles() == {"b": "B", "c": "c"} and copy.told == [{"a", "b"}]
    copy.store.lose_everything()
    assert await copy.live.once()
    assert copy.titles() == {}
    copy.store.put("d", title="d")
    await copy.live.once()
    assert copy.titles() == {"d": "d"}


@asynchronous
async def test_without_redis_a_copy_stays_as_it_is() -> None:
    copy = Copy()
    copy.store.put("a", title="a")
    await copy.live.once()
    copy.store.away = True
    with pytest.raises(StoreUnavailable):
        await copy.live.once()
    assert copy.titles() == {"a": "a"}


@asynchronous
async def test_a_poll_finds_what_no_message_announced() -> None:
    store = ItemsInMemory()
    live = LiveItems(store, Metrics(), poll_s=0.001)
    running = asyncio.create_task(live.run())
    try:
        store.away = True
        store.put("a", title="a")
        store.away = False

        async def found() -> bool:
            return "a" in live.records

        await eventually(found, within_s=20.0)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@asynchronous
async def test_a_start_without_redis_knows_what_was_written_down(tmp_path: Path) -> None:
    store, file = ItemsInMemory(), tmp_path / "folder" / "items.json"
    live = LiveItems(store, Metrics(), copy=file)
    store.put("a", title="ä\n", disabled=True)
    store.put("b", title="B")
    await live.once()
    await live.keep()
    store.away = True
    later = LiveItems(store, Metrics(), copy=file)
    await later.begin()
    assert later.records == live.records and later.records["a"].disabled and later.revision == live.revision
    store.away = False
    store.delete("a")
    reads = store.reads
    await later.once()
    assert later.ids == ["b"] and store.reads == reads + 1, "only what has changed is read"
    for damaged in (b"", b"{}\n", b'{"format": 2}\n', file.read_bytes()[:-9]):
        file.write_bytes(damaged)
        store.away = True
        none = LiveItems(store, Metrics(), copy=file)
        await none.begin()
        assert none.records == {}


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from("abcd"), st.integers(0, 3)),
        st.tuples(st.sampled_from(["delete", "forget"]), st.sampled_from("abcd"), st.just(0)),
        st.tuples(st.sampled_from(["look", "lose"]), st.just(""), st.just(0)),
    ),
    max_size=20,
)


@given(STEPS)
@asynchronous
async def test_whatever_happens_a_copy_ends_as_what_is_stored(steps: list[tuple[str, str, int]]) -> None:
    copy, wanted, known = Copy(), dict[str, int](), dict[str, object]()
    for step, item_id, value in steps:
        match step:
            case "put":
                copy.store.put(item_id, title=value)
                wanted[item_id] = value
            case "delete" | "forget" if wanted.pop(item_id, None) is not None:
                copy.store.delete(item_id, forgotten=step == "forget")
            case "lose":
                copy.store.lose_everything()
                wanted = {}
            case "look":
                await copy.live.once()
    copy.told.clear()
    known = copy.titles()
    await copy.live.once()
    assert copy.titles() == wanted
    told = set().union(*copy.told)
    assert {i for i in known.keys() | wanted.keys() if known.get(i) != wanted.get(i)} <= told
