"""What the store does when its server dies, hangs or restarts, and when its callers go away."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from dataclasses import replace

import pytest

from service.common.errors import StoreUnavailable
from service.store.records import NewEvent, Subject
from service.store.store import Store
from service.store.store_settings import StoreSettings
from tests.support.aio import asynchronous, eventually
from tests.support.valkey import Valkey

T = 1_700_000_000_000
MODEL = "m1"

# Room for a test machine that does other things as well. What would be a fault takes much longer.
SLACK_S = 4.0


def config(server: Valkey) -> StoreSettings:
    return StoreSettings(url=server.url, read_timeout_ms=50, write_timeout_ms=250)


def patient(server: Valkey) -> StoreSettings:
    return replace(config(server), read_timeout_ms=5000, write_timeout_ms=5000)


def user(n: int) -> Subject:
    return Subject("user", f"u{n}")


def click(n: int) -> NewEvent:
    return NewEvent(f"item-of-{n}", "click", T + n)


async def fill(store: Store, users: int) -> None:
    await store.append_many([(user(n), [click(n)]) for n in range(users)])


async def owner_of_reply(store: Store, n: int) -> bool:
    record = await store.read(user(n), MODEL)
    return [e.item_id for e in record.events] == [f"item-of-{n}"]


async def works(store: Store) -> bool:
    with contextlib.suppress(StoreUnavailable):
        await store.read(user(0), MODEL)
        return True
    return False


@asynchronous
async def test_a_cancelled_request_never_leaves_a_half_read_reply(valkey: Valkey) -> None:
    store = await Store.connect(patient(valkey))
    users = 40
    await fill(store, users)
    chance = random.Random(1)
    cancelled = 0
    for _ in range(30):
        tasks = [asyncio.create_task(owner_of_reply(store, n)) for n in chance.choices(range(users), k=20)]
        for _ in range(chance.randrange(12)):
            await asyncio.sleep(0)  # cancel at every stage: waiting for a turn, sending, reading
        for task in chance.sample(tasks, 12):
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            cancelled += isinstance(result, asyncio.CancelledError)
            assert result is True or isinstance(result, asyncio.CancelledError), result
    assert cancelled > 200
    assert all(await asyncio.gather(*(owner_of_reply(store, n) for n in range(users))))
    await store.close()


@asynchronous
async def test_callers_that_timed_out_never_hand_their_reply_to_the_next(valkey: Valkey) -> None:
    store = await Store.connect(config(valkey))
    users = 40
    await fill(store, users)
    for _ in range(3):
        valkey.sigstop()
        results = await asyncio.gather(*(store.read(user(n), MODEL) for n in range(users)), return_exceptions=True)
        assert all(isinstance(r, StoreUnavailable) for r in results)
        valkey.sigcont()  # now the server answers questions nobody waits for any more
        for n in range(users):
            with contextlib.suppress(StoreUnavailable):
                assert await owner_of_reply(store, n)
        await eventually(lambda: works(store), 5)
    await store.close()


@asynchronous
async def test_a_frozen_server_costs_a_reader_its_time_out_and_no_more(valkey: Valkey) -> None:
    store = await Store.connect(config(valkey))
    await fill(store, 1)
    valkey.sigstop()
    for timeout_s, asked in ((0.05, None), (0.01, 0.01)):
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await store.read(user(0), MODEL, asked)
        assert timeout_s * 0.9 <= time.monotonic() - began < timeout_s + SLACK_S
    began = time.monotonic()
    results = await asyncio.gather(*(store.read(user(n), MODEL) for n in range(300)), return_exceptions=True)
    assert all(isinstance(r, StoreUnavailable) for r in results)
    assert time.monotonic() - began < 0.05 + SLACK_S
    valkey.sigcont()
    await eventually(lambda: works(store), 5)
    await store.close()


@asynchronous
async def test_a_killed_server_is_noticed_at_once_and_nothing_is_acknowledged(valkey: Valkey) -> None:
    # Whoever waited for a time-out would wait longer than the slack.
    store = await Store.connect(replace(config(valkey), read_timeout_ms=10_000, write_timeout_ms=10_000))
    await fill(store, 1)
    valkey.kill9()
    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        await store.read(user(0), MODEL)
    with pytest.raises(StoreUnavailable):
        await store.append(user(0), [click(1)])
    with pytest.raises(StoreUnavailable):
        await store.append_many([(user(0), [click(1)]), (user(1), [click(1)])])
    with pytest.raises(StoreUnavailable):
        await store.erase(user(0))
    assert time.monotonic() - began < SLACK_S
    await store.close()


@asynchronous
async def test_acknowledged_events_survive_a_killed_server_and_the_store_recovers_by_itself(
    valkey: Valkey,
) -> None:
    store = await Store.connect(replace(patient(valkey), durability="aof"))
    version = (await store.append(user(0), [click(0)])).version
    await asyncio.gather(*(store.read(user(0), MODEL) for _ in range(16)))  # a pool full of idle connections
    valkey.kill9()
    with pytest.raises(StoreUnavailable):
        await store.read(user(0), MODEL)
    valkey.restart()
    # The scripts are gone with the server, and every pooled connection is dead: neither costs an error.
    records = await asyncio.gather(*(store.read(user(0), MODEL) for _ in range(16)))
    assert {record.version for record in records} == {version}
    assert (await store.append(user(0), [click(0)])).duplicates == 1
    await store.close()


@asynchronous
async def test_a_restart_under_load_gives_right_answers_or_none(valkey: Valkey) -> None:
    store = await Store.connect(replace(config(valkey), read_timeout_ms=500))
    users = 20
    await fill(store, users)
    stop = asyncio.Event()
    outcomes = {"right": 0, "none": 0}

    async def load(seed: int) -> None:
        chance = random.Random(seed)
        while not stop.is_set():
            try:
                assert await owner_of_reply(store, chance.randrange(users))
                outcomes["right"] += 1
            except StoreUnavailable:
                outcomes["none"] += 1
                await asyncio.sleep(0.001)

    tasks = [asyncio.create_task(load(seed)) for seed in range(8)]

    async def reached(name: str, count: int) -> bool:
        for task in tasks:
            if task.done():
                task.result()
        return outcomes[name] >= count

    await eventually(lambda: reached("right", 50), 10)
    await asyncio.to_thread(valkey.stop)  # flushes its file, so that every user is still there afterwards
    await eventually(lambda: reached("none", 20), 10)
    await asyncio.to_thread(valkey.start)
    seen = outcomes["right"]
    await eventually(lambda: reached("right", seen + 50), 10)
    stop.set()
    await asyncio.gather(*tasks)
    await store.close()


@asynchronous
async def test_a_service_can_start_before_its_server(valkey: Valkey) -> None:
    valkey.stop()
    store = await Store.connect(config(valkey))
    assert not await works(store)
    valkey.start()
    await eventually(lambda: works(store), 5)
    await store.close()


@asynchronous
async def test_closing_lets_commands_in_flight_end(valkey: Valkey) -> None:
    store = await Store.connect(patient(valkey))
    append = asyncio.create_task(store.append(user(0), [click(0)]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await store.close()
    assert (await append).accepted == 1
