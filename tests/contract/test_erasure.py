"""An erasure is complete: no key, no value and no replica's memory holds anything of a user. And ids can be hashed."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Awaitable
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from service.common.errors import SettingsError
from service.history.profile import Profile
from service.history.pseudonyms import Pseudonyms
from service.settings.service_settings import Settings
from service.store.records import Subject
from tests.support.aio import asynchronous, eventually
from tests.support.serving import Service, serving
from tests.support.valkey import Valkey

KEY = "a-key-of-more-than-sixteen-characters"
USER, SESSION, OTHER = "user-4711", "session-4712", "user-4713"


async def scan(redis: Redis, prefix: str, but: bytes = b"\0") -> bytes:
    """Every key of a prefix with all that it holds, as one text; without the keys that end with `but`.

    The list that tells the sink whom to forget is left out, as are the entries that tell it.
    """
    parts: list[bytes] = []
    keys = [key async for key in redis.scan_iter(match=f"{prefix}*")]
    for key in sorted(key for key in keys if not key.endswith((but, b"{ops}:erased"))):
        kind = cast("bytes", await redis.type(key)).decode()
        readers: dict[str, Any] = {
            "string": redis.get,
            "hash": redis.hgetall,
            "list": lambda k: redis.lrange(k, 0, -1),
            "set": redis.smembers,
            "zset": lambda k: redis.zrange(k, 0, -1),
            "stream": lambda k: _entries(redis, k),
        }
        value = await cast("Awaitable[Any]", readers[kind](key))
        parts += [key, repr(value).encode(), value if isinstance(value, bytes) else b""]
    return b"\n".join(parts)


async def _entries(redis: Redis, key: Any) -> list[Any]:
    """The entries of a stream, but for those that tell its readers whom to forget."""
    found: Any = await redis.xrange(key)
    return [fields for _, fields in found if b"erased" not in fields]


def traces(*names: str) -> list[object]:
    """What is alive in this process of the subjects: of all replicas in it, whatever holds it."""
    gc.collect()
    # By type and not by isinstance, which asks every object, and some answer with a warning.
    known = {Subject(kind, name) for name in names for kind in ("user", "session")}
    return [
        thing
        for thing in gc.get_objects()
        if (type(thing) is Profile and thing.subject in known)
        or (type(thing) is Subject and thing in known and not any(thing is own for own in known))
    ]


async def live(one: Service, two: Service) -> None:
    """A visitor who logs in, seen by both replicas, with searches and impressions; and somebody else."""
    events = [
        {"session_id": SESSION, "item_id": "1", "type": "view", "timestamp": 1_700_000_000_000},
        {"session_id": SESSION, "type": "search", "query": "boots", "timestamp": 1_700_000_001_000},
        {"session_id": SESSION, "item_id": "2", "type": "impression", "timestamp": 1_700_000_002_000},
    ]
    named = [
        {"user_id": USER, "item_id": "3", "type": "click", "timestamp": 1_700_000_003_000, "event_id": f"{USER}-1"},
        {"user_id": USER, "item_id": "4", "type": "cart", "timestamp": 1_700_000_004_000, "session_id": SESSION},
        {"user_id": OTHER, "item_id": "5", "type": "view", "timestamp": 1_700_000_005_000},
    ]
    for batch in (events, named):
        assert (await one.client.post("/events", json={"events": batch})).status_code == 200
    for service in (one, two):
        await service.recommend(session_id=SESSION)
        await service.recommend(user_id=OTHER)
    merged = await two.client.post("/sessions/merge", json={"session_id": SESSION, "user_id": USER})
    assert merged.json()["merged"] == 3
    for service in (one, two):
        await service.recommend(user_id=USER)
        await service.settled()
        assert len(service.runtime.space.states.cache) == 2


@pytest.mark.parametrize("key", ["", KEY], ids=["plain", "hashed"])
@asynchronous
async def test_an_erasure_leaves_nothing_in_any_key_value_or_cache_of_two_replicas(
    shared_valkey: Valkey, key: str
) -> None:
    prefix = f"erase{len(key)}:"
    where: dict[str, Any] = {"redis_url": shared_valkey.url, "prefix": prefix, "operator": True, "hash_user_ids": key}
    ids = Pseudonyms(Settings(hash_user_ids=key).hash_user_ids)
    names = [USER, SESSION, ids.named("user", USER).id, ids.named("session", SESSION).id]
    async with Redis.from_url(shared_valkey.url) as redis, serving(**where) as one, serving(**where) as two:
        await live(one, two)
        assert names[2].encode() in await scan(redis, prefix)
        assert traces(*names)
        answer = await one.client.delete(f"/users/{USER}")
        assert answer.json()["deleted"] >= 4
        assert answer.json()["entries"] >= 4

        async def forgotten() -> bool:
            return len(two.runtime.space.states.cache) == 1

        await eventually(forgotten, within_s=10.0)
        for service in (one, two):
            await service.settled()

        async def gone() -> bool:  # also what the other replica had queued to be recorded
            left = await scan(redis, prefix)
            return not any(name.encode() in left for name in names)

        await eventually(gone, within_s=10.0)
        left = await scan(redis, prefix)
        assert ids.named("user", OTHER).id.encode() in left
        del answer
        assert not traces(*names)
        assert (await two.client.get(f"/users/{USER}")).status_code == 404
        assert (await two.recommend(user_id=USER))["segment"] == "new"
        assert (await two.client.get(f"/users/{OTHER}")).status_code == 200


@asynchronous
async def test_with_a_key_no_id_is_in_any_key_or_value(shared_valkey: Valkey) -> None:
    where: dict[str, Any] = {"redis_url": shared_valkey.url, "prefix": "hashed:", "operator": True}
    async with (
        Redis.from_url(shared_valkey.url) as redis,
        serving(**where, hash_user_ids=KEY) as one,
        serving(**where, hash_user_ids=KEY) as two,
    ):
        await live(one, two)
        await one.client.put("/ops/fallback", json={"mode": "auto", "reason": "drill"})
        stored = await scan(redis, "hashed:")
        shown = (await one.client.get(f"/users/{USER}")).json()
        other_key = Pseudonyms(Settings(hash_user_ids=KEY + "x").hash_user_ids)
    for name in (USER, SESSION, OTHER):
        assert name.encode() not in stored
        for unkeyed in (hashlib.sha256, hashlib.sha1, hashlib.md5):
            assert unkeyed(name.encode()).hexdigest()[:16].encode() not in stored
    assert (shown["user_id"], [e["item_id"] for e in shown["history"]]) == (USER, ["1", "3", "4"])
    assert USER not in str(shown["history"])
    assert other_key.named("user", USER).id.encode() not in stored


@asynchronous
async def test_an_erasure_also_finds_what_was_kept_before_there_was_a_key(shared_valkey: Valkey) -> None:
    where: dict[str, Any] = {"redis_url": shared_valkey.url, "prefix": "before:", "operator": True}
    async with serving(**where) as service:
        await service.post_events(USER, "1", "2")
    async with Redis.from_url(shared_valkey.url) as redis, serving(**where, hash_user_ids=KEY) as service:
        await service.client.delete(f"/users/{USER}")
        assert USER.encode() not in await scan(redis, "before:")


@asynchronous
async def test_an_erasure_that_a_replica_did_not_hear_of_is_made_up_for(valkey: Valkey) -> None:
    """Its subscription is cut, and the user is erased meanwhile."""
    where: dict[str, Any] = {"redis_url": valkey.url, "prefix": "missed:", "operator": True}
    async with Redis.from_url(valkey.url) as redis, serving(**where) as service:
        for user in (USER, OTHER):
            await service.post_events(user, "1", "2")
            await service.recommend(user_id=user)
        await service.settled()
        keys = [key async for key in redis.scan_iter(match=f"missed:{{u:{USER}}}*")]
        await redis.delete(*keys)  # as an erasure that nobody was told of
        assert len(service.runtime.space.states.cache) == 2
        await redis.client_kill_filter(_type="pubsub")

        async def forgotten() -> bool:
            return len(service.runtime.space.states.cache) == 1

        await eventually(forgotten, within_s=10.0)
        assert not traces(USER)
        assert [p.subject for p in service.runtime.space.states.cache.profiles()] == [Subject("user", OTHER)]


def test_a_user_a_session_and_an_event_of_one_name_are_three() -> None:
    ids = Pseudonyms(Settings(hash_user_ids=KEY).hash_user_ids)
    assert len({ids.named("user", "x").id, ids.named("session", "x").id, ids.event_id("x")}) == 3
    assert ids.named("user", "x") == ids.subject("x", "y")
    assert len(ids.named("user", "x").id) == 32


def test_a_key_that_is_too_short_is_refused() -> None:
    with pytest.raises(SettingsError, match="GPT4REC_HASH_USER_IDS") as caught:
        Pseudonyms(Settings(hash_user_ids="shortkey").hash_user_ids)
    assert "shortkey" not in str(caught.value)


@pytest.mark.parametrize("tag", ["", "{u:}", "u:x", "{x:1}", "{u:a b}", "{u:%zz}", "{s}", "{u:a}{u:b}"])
def test_what_is_no_tag_names_nobody(tag: str) -> None:
    assert Subject.of_tag(tag) is None


@pytest.mark.parametrize("name", ["u1", "a b/ü%:{}", "\u2028"])
def test_a_tag_names_its_subject(name: str) -> None:
    assert Subject.of_tag(Subject("session", name).tag) == Subject("session", name)
