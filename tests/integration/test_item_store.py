"""Stored items in a real Redis, against a dictionary: versions, changes to follow, and what is not ours."""

from __future__ import annotations

import random

import pytest
from redis.asyncio import Redis

from service.catalogue.live_items import LiveItems
from service.metrics.service_metrics import Metrics
from service.store import items
from service.store.items import ItemWrite
from service.store.store import Store
from service.store.store_settings import StoreSettings
from tests.support.aio import asynchronous
from tests.support.valkey import Valkey


def store_of(valkey: Valkey, prefix: str) -> Store:
    return Store(StoreSettings(url=valkey.url, prefix=prefix, read_timeout_ms=2000, write_timeout_ms=2000))


@asynchronous
async def test_changes_end_where_a_dictionary_does_and_copies_follow_them(
    shared_valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(items, "DELETED_MAX", 2)
    store, rng = store_of(shared_valkey, "items-model:"), random.Random(0)
    quick, slow = LiveItems(store.items, Metrics()), LiveItems(store.items, Metrics())
    wanted: dict[str, tuple[dict[str, int], bool]] = {}
    latest = 0
    try:
        for step in range(120):
            item_id = rng.choice(["a/b", "ä", "c d", "4", "5"])
            action = rng.choice(["put", "put", "disable", "enable", "delete"])
            fields = {"price": rng.randrange(3)} if action == "put" else {}
            [done] = await store.items.write([ItemWrite(item_id, action, fields)], "al ice", 4)  # type: ignore[arg-type]
            before = wanted.get(item_id)
            if action == "delete":
                assert done.outcome == ("missing" if before is None else "deleted")
                wanted.pop(item_id, None)
            elif before is None and (action == "enable" or len(wanted) == 4):
                assert done.outcome == ("missing" if action == "enable" else "full")
            else:
                after = (fields if action == "put" else (before or ({}, False))[0],
                         {"disable": True, "enable": False}.get(action, before is not None and before[1]))  # fmt: skip
                assert done.outcome == ("created" if before is None else "unchanged" if after == before else "updated")
                wanted[item_id] = after
            if done.outcome in ("created", "updated", "deleted"):
                assert done.version > latest
                latest = done.version
            await quick.once()
            if step % 30 == 0:
                await slow.once()
        await slow.once()
        for copy in (quick, slow):
            assert {i: (dict(r.fields), r.disabled) for i, r in copy.records.items()} == wanted
            assert {record.actor for record in copy.records.values()} <= {"al ice"}
        assert (await store.items.changes(0)).floor > 0, "more deletions than are kept"
        log = await store.items.log(1000)
        assert log[0]["version"] == latest and all(entry["actor"] == "al ice" for entry in log)
    finally:
        await store.close()


@asynchronous
async def test_keys_and_records_that_are_not_ours_stop_nothing(shared_valkey: Valkey) -> None:
    store = store_of(shared_valkey, "items-strange:")
    try:
        async with Redis.from_url(shared_valkey.url) as redis:
            for name in ("head", "records", "changes", "deleted", "log"):
                await redis.set(f"items-strange:{{items}}:{name}", "x")
            assert (await store.items.changes(0)).ids == [] and await store.items.log(5) == []
            assert await store.items.read(["a"]) == [None]
            [done] = await store.items.write([ItemWrite("a", "put", {"title": "A"})], "alice", 10)
            assert done.outcome == "created"
            await redis.hset("items-strange:{items}:records", "a", "2 of another release")
            copy = LiveItems(store.items, Metrics())
            await copy.once()
            await copy.once()
            assert copy.records == {} and await store.items.read(["a"]) == [None]
            [done] = await store.items.write([ItemWrite("a", "put", {"title": "B"})], "alice", 10)
            await copy.once()
            assert copy.records["a"].fields == {"title": "B"} and copy.records["a"].version == done.version
    finally:
        await store.close()
