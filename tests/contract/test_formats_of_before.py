"""What the release before wrote into Redis is read by this one, and this one writes nothing that it could not read."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import redis

from service.history import state_blob
from service.store.records import Subject
from service.store.store import Store
from service.store.store_settings import StoreSettings
from tests.support import formats_of_before as before
from tests.support.aio import asynchronous
from tests.support.fakes import LAYOUT
from tests.support.serving import Service, serving
from tests.support.valkey import Valkey

FIXTURE = Path(__file__).with_name("formats_of_before.json.gz")
WRITTEN: dict[str, Any] = json.loads(gzip.decompress(FIXTURE.read_bytes()))
# Entries of hashes that name a replica, and so differ from run to run.
REPLICAS = "{ops}:replicas"


@asynccontextmanager
async def after_the_release_before(url: str, prefix: str) -> AsyncIterator[Service]:
    """This release on the keys of the one before, without items, which the artefact of these tests cannot take."""
    with redis.Redis.from_url(url) as client:
        others = {name: kept for name, kept in WRITTEN["keys"].items() if not name.startswith("{items}")}
        before.restore(client, prefix, others)
    async with serving(redis_url=url, prefix=prefix, **before.SETTINGS) as service:
        yield service


def keys(url: str, prefix: str) -> dict[str, Any]:
    with redis.Redis.from_url(url) as client:
        return before.dump(client, prefix)


def form(name: str, kind: str, content: Any) -> Any:
    """The form of a value: names of fields, and what says of a packed one which format it has."""
    if kind == "hash" and name not in (REPLICAS, "{items}:records"):
        return sorted(content)
    if kind == "stream":
        return sorted({tuple(field for field, _ in fields) for _, fields in content})
    if kind == "zset":
        return sorted({before.bare(member).count(b"\x1f") for member, _ in content})
    if kind == "string" and name.endswith((":version", ":key")):
        return len(before.bare(content))
    if kind == "string":
        return before.bare(content)[: 5 if ":state:" in name else 1]
    return None


def forms(found: dict[str, Any]) -> dict[str, Any]:
    return {name: (kind, form(name, kind, content)) for name, (kind, content) in found.items()}


@asynchronous
async def test_everything_that_was_stored_is_said_as_before(shared_valkey: Valkey) -> None:
    async with after_the_release_before(shared_valkey.url, "before-told:") as service:
        assert await before.told(service) == WRITTEN["told"]
        answer = await service.recommend(user_id=before.ANN, k=3)
    assert answer["rung"] == "item_cf"  # the forced mode holds


@asynchronous
async def test_events_that_were_stored_stay_duplicates_by_id_by_content_and_after_they_left_the_log(
    shared_valkey: Valkey,
) -> None:
    async with after_the_release_before(shared_valkey.url, "before-events:") as service:
        again = await service.client.post("/events", json={"events": before.EVENTS})
    assert (again.json()["accepted"], again.json()["duplicates"]) == (0, len(before.EVENTS))


@asynchronous
async def test_a_state_is_taken_over_without_encoding_the_history_again(shared_valkey: Valkey) -> None:
    async with after_the_release_before(shared_valkey.url, "before-state:") as service:
        record = await service.runtime.space.store.read(Subject("user", before.ANN), "fake-1")
        state = state_blob.unpack(record.blob, LAYOUT)
        assert state is not None and state.version == record.version and np.isfinite(state.h).all()
        encoded = len(service.engine.encoded)
        ended = await service.client.put("/ops/fallback", json={"mode": "auto", "reason": "the drill is over"})
        assert ended.status_code == 200, ended.text
        assert (await service.recommend(user_id=before.ANN, k=3))["rung"] == "full"
        assert len(service.engine.encoded) == encoded


@asynchronous
async def test_an_erasure_finds_everything_that_was_written_of_a_user(shared_valkey: Valkey) -> None:
    async with after_the_release_before(shared_valkey.url, "before-erased:") as service:
        assert (await service.client.delete(f"/users/{before.ANN}")).status_code == 200
        await service.settled()
    left = keys(shared_valkey.url, "before-erased:")
    assert not [name for name in left if name.startswith("{u:ann}")]
    for stream in ("events:0", "exposures:0"):
        entries = [dict(map(tuple, fields)) for _, fields in left.get(stream, ["stream", []])[1]]
        of_ann = [entry for entry in entries if before.bare(entry.get(before.text(b"s"), "")) == b"u:ann"]
        assert all(before.text(b"erased") in entry for entry in of_ann)


@asynchronous
async def test_this_release_writes_the_same_keys_in_the_same_forms(shared_valkey: Valkey) -> None:
    prefix = "before-written:"
    async with serving(redis_url=shared_valkey.url, prefix=prefix, **before.SETTINGS) as service:
        assert await before.play(service) == WRITTEN["told"]
        found = await asyncio.to_thread(keys, shared_valkey.url, prefix)
    assert forms(found) == forms(WRITTEN["keys"])


@asynchronous
async def test_items_that_were_stored_are_read_with_their_versions_and_their_log(shared_valkey: Valkey) -> None:
    prefix = "before-items:"
    with redis.Redis.from_url(shared_valkey.url) as client:
        before.restore(client, prefix, WRITTEN["keys"])
    store = Store(StoreSettings(url=shared_valkey.url, prefix=prefix, history_cap=before.CAP))
    try:
        [item] = await store.items.read([before.ITEM])
        changes, log = await store.items.changes(0), await store.items.log(10)
    finally:
        await store.close()
    assert item is not None
    assert (item.fields["price"], item.actor, item.disabled) == (before.CHANGED["price"], "tester", False)
    assert (list(changes.ids), [int(version) for version in changes.versions]) == ([before.ITEM], [item.version])
    assert [(entry["item_id"], entry["actor"]) for entry in log] == [(before.ITEM, "tester")]
