"""Checkpoints in the store: written with their state or not at all, and a floor below which the log takes nothing."""

from __future__ import annotations

import uuid

from service.store.records import CheckpointWrite, NewEvent, StateWrite, Subject
from service.store.store import Store
from service.store.store_settings import StoreSettings
from tests.support.aio import asynchronous
from tests.support.valkey import Valkey

T = 1_700_000_000_000
USER, SESSION, ENCODER = Subject("user", "u"), Subject("session", "s"), "e1"


async def open_store(server: Valkey) -> Store:
    prefix = f"c{uuid.uuid4().hex}:"
    return await Store.connect(
        StoreSettings(url=server.url, prefix=prefix, history_cap=20, read_timeout_ms=2000, write_timeout_ms=2000)
    )


def click(item: str, time_ms: int, event_id: str | None = None) -> NewEvent:
    return NewEvent(item, "click", time_ms, event_id)


async def write(store: Store, version: str, checkpoint: CheckpointWrite, encoder: str = ENCODER) -> bool:
    return (await store.write_states([(USER, StateWrite(version, b"state", checkpoint))], encoder))[0]


@asynchronous
async def test_an_event_at_or_below_the_floor_is_seen_but_not_in_the_log(shared_valkey: Valkey) -> None:
    store = await open_store(shared_valkey)
    version = (await store.append(USER, [click(str(n), T + 10 * n) for n in range(5)])).version
    assert await write(store, version, CheckpointWrite(b"checkpoint", T + 20.0))
    late = await store.append(USER, [click("late", T + 15, "id"), click("in time", T + 25)])
    assert (late.accepted, late.late) == (2, 1)
    record = await store.read(USER, ENCODER)
    assert [event.item_id for event in record.events] == ["0", "1", "2", "in time", "3", "4"]
    assert list(record.seen.item_ids()) == ["late"]
    again = await store.append(USER, [click("late", T + 15, "id")])
    assert (again.duplicates, again.late, again.version) == (1, 0, late.version)
    await store.close()


@asynchronous
async def test_a_checkpoint_is_written_with_its_state_or_not_at_all(shared_valkey: Valkey) -> None:
    store = await open_store(shared_valkey)
    old = (await store.append(USER, [click("a", T)])).version
    new = (await store.append(USER, [click("b", T + 10)])).version
    assert not await write(store, old, CheckpointWrite(b"checkpoint", T + 0.0))
    assert await store.read_checkpoint(USER, ENCODER) is None
    assert (await store.append(USER, [click("c", T - 5)])).late == 0, "there is no floor"
    version = (await store.read(USER, ENCODER)).version
    assert version != new
    assert await write(store, version, CheckpointWrite(b"checkpoint", T + 0.0))
    assert await write(store, version, CheckpointWrite())
    assert await store.read_checkpoint(USER, ENCODER) == b"checkpoint", "it stays where no new one comes"
    assert await store.read_checkpoint(USER, "e2") is None
    await store.close()


@asynchronous
async def test_the_floor_of_several_encoders_is_the_highest(shared_valkey: Valkey) -> None:
    store = await open_store(shared_valkey)
    version = (await store.append(USER, [click(str(n), T + 10 * n) for n in range(5)])).version
    assert await write(store, version, CheckpointWrite(b"one", T + 30.0))
    assert await write(store, version, CheckpointWrite(b"other", T + 10.0), "e2")
    assert (await store.append(USER, [click("late", T + 25)])).late == 1
    assert await store.read_checkpoint(USER, ENCODER) == b"one"
    assert await store.read_checkpoint(USER, "e2") == b"other"
    await store.close()


@asynchronous
async def test_a_merge_says_how_many_events_came_too_late(shared_valkey: Valkey) -> None:
    store = await open_store(shared_valkey)
    version = (await store.append(USER, [click(str(n), T + 10 * n) for n in range(5)])).version
    assert await write(store, version, CheckpointWrite(b"checkpoint", T + 20.0))
    await store.append(SESSION, [click("early", T + 5), click("later", T + 35)])
    late: list[int] = []
    assert await store.merge(SESSION, USER, late.append) == 2
    assert sum(late) == 1
    assert [event.item_id for event in (await store.read(USER, ENCODER)).events] == ["0", "1", "2", "3", "later", "4"]
    await store.close()
