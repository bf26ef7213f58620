"""Pages of a list: no item twice, no gap but what was forbidden, and no way around expiry, erasure and the seal."""

from __future__ import annotations

import base64
import random
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import orjson
import pytest
from redis.asyncio import Redis

from service.artifact.artifact import Artifact
from service.engine.engine import Engine
from service.recommend.page_token import PageToken, opened
from service.schemas.list_answers import RecommendAnswer
from tests.support.aio import asynchronous
from tests.support.fakes import FakeEngine
from tests.support.processes import ids
from tests.support.serving import Service, serving
from tests.support.valkey import Valkey

BEAM = {"strategy": "beam"}


async def pages(service: Service, cursor: str | None, **more: Any) -> list[dict[str, Any]]:
    found = []
    while cursor is not None:
        answer = await service.recommend(cursor=cursor, **more)
        RecommendAnswer.model_validate(answer)
        found.append(answer)
        cursor = answer["cursor"]
    return found


async def refused(service: Service, status: int, **body: Any) -> str:
    answer = await service.client.post("/recommend", json=body)
    assert answer.status_code == status, answer.text
    return str(answer.json()["type"].rpartition(":")[2])


@asynchronous
async def test_the_pages_are_the_list_on_every_replica(shared_valkey: Valkey) -> None:
    async with (
        serving(redis_url=shared_valkey.url, prefix="pages:") as one,
        serving(redis_url=shared_valkey.url, prefix="pages:") as two,
    ):
        await one.post_events("u", "3")
        first = await one.recommend(user_id="u", k=7, page=True, decoding=BEAM)
        later = await pages(two, first["cursor"], k=7)
        whole = await one.recommend(user_id="u", k=39, decoding=BEAM)
    everything = [first, *later]
    assert [item for page in everything for item in ids(page)] == ids(whole)
    assert [item["rank"] for page in everything for item in page["items"]] == list(range(1, 40))
    assert [len(page["items"]) for page in everything] == [7, 7, 7, 7, 7, 4]
    assert {page["list_id"] for page in everything} != {first["list_id"]}
    assert later[-1]["reason"] == "not_enough_items" and "cursor" not in whole
    assert {(page["source"], page["rung"], page["segment"]) for page in everything} == {
        (first["source"], "full", first["segment"])
    }


@asynchronous
async def test_what_was_seen_excluded_or_filtered_since_is_dropped_and_that_is_no_gap(shared_valkey: Valkey) -> None:
    async with serving(redis_url=shared_valkey.url, prefix="pagesseen:") as service:
        first = await service.recommend(user_id="u", k=5, page=True, decoding=BEAM)
        rest = [item for page in await pages(service, first["cursor"]) for item in ids(page)]
        await service.post_events("u", rest[0], rest[3])
        page = await service.recommend(user_id="u", k=4, cursor=first["cursor"], exclude=[rest[1]])
        assert ids(page) == [rest[2], *rest[4:7]]
        assert [item["rank"] for item in page["items"]] == [6, 7, 8, 9]
        after = await service.recommend(k=20, cursor=page["cursor"], filter={"category": ["War"]})
        assert ids(after) == [item for item in rest[7:] if int(item) % 4 == 3]
        nothing = await service.recommend(k=20, cursor=page["cursor"], filter={"category": ["Wra"]})
        assert nothing["items"] == [] and "category=Wra" in nothing["warnings"][0]
        kept = await service.recommend(user_id="u", k=5, page=True, decoding=BEAM, exclude_seen=False)
        again = [item for page in await pages(service, kept["cursor"]) for item in ids(page)]
        assert rest[0] in ids(kept) + again


@asynchronous
async def test_a_cursor_ends_with_its_user_and_its_time(shared_valkey: Valkey) -> None:
    async with (
        serving(redis_url=shared_valkey.url, prefix="pagesgone:", operator=True) as one,
        serving(redis_url=shared_valkey.url, prefix="pagesgone:") as two,
    ):
        await one.post_events("u", "3")
        cursor = (await one.recommend(user_id="u", k=5, page=True))["cursor"]
        other = (await one.recommend(user_id="v", k=5, page=True))["cursor"]
        later = (await two.recommend(cursor=cursor))["cursor"]
        assert (await one.client.delete("/users/u")).status_code == 200
        for service in (one, two):
            assert await refused(service, 410, cursor=cursor) == "cursor_gone"
            assert await refused(service, 410, cursor=later) == "cursor_gone"
        assert ids(await two.recommend(cursor=other))
        again = await two.recommend(user_id="u", k=5, page=True)
        assert ids(await one.recommend(cursor=again["cursor"])), "whoever comes back has pages again"
        assert await refused(one, 422, cursor=other, user_id="u") == "invalid_cursor"
        redis: Any
        async with Redis.from_url(shared_valkey.url) as redis:
            key = await redis.get("pagesgone:{pages}:key")
        old = replace(opened(other, key), expires_ms=int(time.time() * 1000)).sealed(key)
        assert await refused(one, 410, cursor=old) == "cursor_gone"


@asynchronous
async def test_an_erasure_ends_the_cursors_of_sessions_that_became_the_users(shared_valkey: Valkey) -> None:
    async with serving(redis_url=shared_valkey.url, prefix="pagesmerged:", operator=True) as service:
        event = {"session_id": "s", "item_id": "3", "type": "view", "timestamp": 1_700_000_000_000}
        assert (await service.client.post("/events", json={"events": [event]})).status_code == 200
        cursor = (await service.recommend(session_id="s", k=5, page=True))["cursor"]
        merged = await service.client.post("/sessions/merge", json={"session_id": "s", "user_id": "u"})
        assert merged.status_code == 200
        assert ids(await service.recommend(cursor=cursor)), "logging in turns no page away"
        assert (await service.client.delete("/users/u")).status_code == 200
        assert await refused(service, 410, cursor=cursor) == "cursor_gone"


@asynchronous
async def test_a_cursor_that_is_not_ours_is_refused(shared_valkey: Valkey) -> None:
    async with (
        serving(redis_url=shared_valkey.url, prefix="pagesown:") as service,
        serving(redis_url=shared_valkey.url, prefix="pagesother:") as stranger,
    ):
        cursor = (await service.recommend(user_id="u", k=5, page=True))["cursor"]
        raw = bytearray(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        changed = []
        for at in (0, 1, 16, 20, len(raw) - 1):
            damaged = bytearray(raw)
            damaged[at] ^= 1
            changed.append(base64.urlsafe_b64encode(bytes(damaged)).decode().rstrip("="))
        for bad in changed[1:]:
            assert await refused(service, 422, cursor=bad) == "invalid_cursor", bad
        for bad in (changed[0], "x", "%%%", "é", cursor[:-4], cursor + "AAAA", "A" * 70, "AQ"):
            assert await refused(service, 422, cursor=bad) in ("invalid_cursor", "invalid_request"), bad
        assert await refused(stranger, 422, cursor=cursor) == "invalid_cursor"
        for more in ({"events": [{"item_id": "1"}]}, {"seed": 1}, {"page": True}, {"scene": "home"}, {"explain": True}):
            assert await refused(service, 422, cursor=cursor, **more) == "invalid_request"
        assert await refused(service, 422, cursor="A" * 70_000) == "invalid_request"


@asynchronous
async def test_without_redis_lists_have_no_cursor_and_cursors_wait(shared_valkey: Valkey) -> None:
    async with serving(redis_url=shared_valkey.url, prefix="pagesaway:") as service:
        cursor = (await service.recommend(user_id="u", page=True))["cursor"]
    async with serving() as away:
        first = await away.recommend(user_id="u", k=5, page=True)
        assert len(first["items"]) == 5 and first["cursor"] is None
        assert any("cannot be continued" in text for text in first["warnings"])
        answer = await away.client.post("/recommend", json={"cursor": cursor})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


@asynchronous
async def test_below_the_model_lists_have_pages_too(shared_valkey: Valkey) -> None:
    engine = FakeEngine()
    engine.fail_jobs = True
    async with serving(engine, redis_url=shared_valkey.url, prefix="pagesbelow:") as service:
        await service.post_events("u", "3", "5")
        first = await service.recommend(user_id="u", k=10, page=True)
        every = [*ids(first), *(item for page in await pages(service, first["cursor"]) for item in ids(page))]
    assert first["rung"] == "item_cf"
    assert len(every) == len(set(every)) == 38


@asynchronous
async def test_rules_hold_for_the_first_page_and_no_item_is_lost_or_comes_twice(shared_valkey: Valkey) -> None:
    pin = {"name": "campaign", "kind": "pin", "item": "2", "position": 1}
    async with serving(redis_url=shared_valkey.url, prefix="pagesruled:") as service:
        asked: dict[str, Any] = {"user_id": "u", "k": 6, "decoding": BEAM, "rules": [pin]}
        alone = await service.recommend(**asked)
        first = await service.recommend(**asked, page=True)
        every = [*ids(first), *(item for page in await pages(service, first["cursor"]) for item in ids(page))]
    assert ids(first) == ids(alone) and ids(first)[0] == "2"
    assert sorted(every, key=int) == [str(n) for n in range(40)]


@asynchronous
async def test_pages_of_a_drawn_list_are_recorded_with_the_law_of_the_first_draw(
    shared_valkey: Valkey, random_artifact: Path
) -> None:
    engine = Engine(Artifact.open(random_artifact), device="cpu")
    try:
        async with serving(cast("Any", engine), redis_url=shared_valkey.url, prefix="pageslaw:") as service:
            drawn = {"strategy": "temperature", "temperature": 1.5}
            whole = await service.recommend(user_id="u", k=20, decoding=drawn, seed=5)
            first = await service.recommend(user_id="u", k=6, decoding=drawn, seed=5, page=True)
            second = await service.recommend(cursor=first["cursor"], k=6)
            await service.settled()
            by_id = await recorded(shared_valkey, "pageslaw:")
    finally:
        engine.close()
    one, two, all_of = (by_id[answer["list_id"]] for answer in (first, second, whole))
    assert one["log_propensities"] + two["log_propensities"] == pytest.approx(all_of["log_propensities"][:12], abs=1e-4)
    assert (one["first_rank"], two["first_rank"], one["drawn"], two["drawn"]) == (1, 7, 6, 6)
    assert (two["seed"], two["strategy"], two["items"]) == (5, "temperature", ids(second))
    assert two["subject"] == "u:u" and (one["has candidates"], two["has candidates"]) == (True, False)


async def recorded(valkey: Valkey, prefix: str) -> dict[str, dict[str, Any]]:
    """The recorded lists, by id."""
    found = {}
    redis: Any
    async with Redis.from_url(valkey.url) as redis:
        async for key in redis.scan_iter(match=f"{prefix}exposures:*"):
            for _, fields in await redis.xrange(key):
                entry = orjson.loads(fields[b"e"])
                found[entry["list_id"]] = {**entry, "has candidates": b"c" in fields}
    return found


def test_a_token_survives_its_seal_and_long_ids_leave_room_for_fewer_items() -> None:
    ids_of_200 = [f"{n:03d}" + "é" * 125 for n in range(200)]
    token = PageToken("{u:a}", "", 5, 10, ids_of_200, [0.5] * 200, [-1.0] * 7, 7, True, {"a": 1})
    key = b"k" * 64
    cursor = token.sealed(key)
    assert cursor is not None and len(cursor) <= 65_536
    assert opened(cursor, key) == token
    letters = "abcdefghijklmnopqrstuvwxyzéèöäü0123456789"
    noisy = ["".join(random.Random(n).choices(letters, k=128)) for n in range(1000)]
    far = PageToken("", "", 5, 10, noisy, [0.1] * 1000, [], 0, False, {})
    sealed = far.sealed(key)
    assert sealed is not None and len(sealed) <= 65_536
    kept = opened(sealed, key)
    assert list(kept.items) == list(far.items[: len(kept.items)]) and 100 < len(kept.items) < 1000
