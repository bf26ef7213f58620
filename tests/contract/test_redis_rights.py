"""The service under the least rights of the documents, without some of them, and with keys of a strange type."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from service.access import rate_limits
from service.store.redis_rights import acl_line
from tests.support.aio import asynchronous, eventually
from tests.support.serving import Service, serving
from tests.support.valkey import Valkey

T = 1_700_000_000_000
EVENT = {"user_id": "u", "item_id": "1", "type": "click", "timestamp": T}


@contextlib.asynccontextmanager
async def served(valkey: Valkey, prefix: str, line: str = "", **settings: Any) -> AsyncIterator[tuple[Service, Any]]:
    """A service whose user of Redis was created by `line`, and an administrator's client."""
    admin: Any = Redis.from_url(valkey.url)
    url = valkey.url
    if line:
        await admin.execute_command(*line.split())
        url = url.replace("unix://", f"unix://{line.split()[2]}:pw@")
    try:
        async with serving(redis_url=url, prefix=prefix, operator=True, **settings) as service:
            yield service, admin
    finally:
        await admin.aclose()


async def whole_contract(service: Service) -> None:
    """Everything that a frontend and an operator ask for which touches Redis."""
    client = service.client
    session = {"session_id": "s", "item_id": "2", "type": "view", "timestamp": T + 1}
    signal = {"user_id": "u", "type": "search", "query": "x", "timestamp": T + 2}
    answer = await client.post("/events", json={"events": [EVENT, session, signal]})
    assert answer.json()["accepted"] == 3, answer.text
    assert (await service.recommend(user_id="u"))["reason"] is None
    await service.settled()
    assert (await client.post("/sessions/merge", json={"session_id": "s", "user_id": "u"})).json()["merged"] == 1
    assert (await client.put("/users/u/features", json={"features": {"taste": "sweet"}})).status_code == 200
    shown = (await client.get("/users/u")).json()
    assert [event["item_id"] for event in shown["history"]] == ["1", "2"]
    assert shown["features"] == (await client.get("/users/u/features")).json()["features"] == {"taste": "sweet"}
    put = await client.put("/ops/fallback", json={"mode": "fallback", "reason": "drill"})
    assert put.json()["shared"] is True, put.text
    assert (await client.put("/ops/fallback", json={"mode": "auto", "reason": "over"})).json()["shared"] is True
    entries = (await client.get("/ops/audit")).json()["entries"]
    assert [entry.get("reason") for entry in entries] == ["over", "drill", None]  # features have none
    assert (await client.get("/ops/models")).status_code == 200
    erased = await client.delete("/users/u")
    assert (erased.status_code, erased.json()["deleted"] >= 4) == (200, True), erased.text
    assert (await client.get("/users/u")).status_code == 404


@asynchronous
async def test_the_least_rights_of_the_documents_are_enough_for_the_whole_contract(shared_valkey: Valkey) -> None:
    line = acl_line("least", "pw", "least:", rate_limits.SCRIPTS)
    async with served(shared_valkey, "least:", line, api_rate="1000/second") as (service, admin):
        await admin.execute_command("ACL", "LOG", "RESET")
        await whole_contract(service)
        ready = (await service.client.get("/readyz")).json()
        assert (ready["checks"]["redis"], ready["redis_cause"]) == (True, None)
        denied = await admin.execute_command("ACL", "LOG")
        assert not [entry for entry in denied if b"least" in str(entry).encode()]


@asynchronous
async def test_without_rights_to_the_channel_writes_stand_and_are_answered_rightly(shared_valkey: Valkey) -> None:
    line = acl_line("mute", "pw", "mute:", rate_limits.SCRIPTS).replace("&mute:*", "&other")
    async with served(shared_valkey, "mute:", line) as (service, _):
        await whole_contract(service)
        assert (await service.client.get("/readyz")).json()["checks"]["redis"] is True


@asynchronous
async def test_a_right_that_is_missing_is_named_and_nothing_is_half_done(shared_valkey: Valkey) -> None:
    line = acl_line("few", "pw", "few:", rate_limits.SCRIPTS)
    async with served(shared_valkey, "few:", line + " -pexpire") as (service, admin):
        assert (await service.client.post("/events", json={"events": [EVENT]})).status_code == 503
        assert not [key async for key in admin.scan_iter(match="few:*u:u*")]
        status = (await service.client.get("/ops/status")).json()
        assert (status["redis"], status["redis_cause"]) == (False, "no_permission")
        assert "rights" in status["redis_meaning"]
        assert 'gpt4rec_redis_state{cause="no_permission"} 1.0' in (await service.client.get("/metrics")).text
        assert "+pexpire" in service.runtime.space.redis.detail
        await admin.execute_command("ACL", "SETUSER", "few", "+pexpire")

        async def noticed() -> bool:
            return bool((await service.client.get("/readyz")).json()["redis_cause"] is None)

        await eventually(noticed, within_s=20.0)
        assert (await service.client.post("/events", json={"events": [EVENT]})).status_code == 200


@pytest.mark.parametrize("value", ["string", "list"])
@asynchronous
async def test_no_route_is_stopped_by_keys_of_a_type_that_the_service_did_not_write(
    value: str, shared_valkey: Valkey
) -> None:
    """Every key that the contract leaves is replaced by one of another type; then the contract is asked for again."""
    prefix = f"strange-{value}:"
    async with served(shared_valkey, prefix) as (service, admin):
        await service.client.post("/events", json={"events": [EVENT, {**EVENT, "item_id": None, "type": "search"}]})
        await service.client.post("/events", json={"events": [{**EVENT, "user_id": None, "session_id": "s"}]})
        await service.recommend(user_id="u")
        await service.settled()
        await service.client.put("/ops/fallback", json={"mode": "auto", "reason": "begin"})
        keys = {key.decode() async for key in admin.scan_iter(match=f"{prefix}*")}
        own = ("version", "signals", "states", "features")
        keys |= {f"{prefix}{{{tag}}}:{name}" for tag in ("u:u", "s:s") for name in own}
        keys |= {f"{prefix}{{ops}}:{name}" for name in ("mode", "model", "policies", "audit", "replicas")}
        assert len(keys) >= 13
        for key in keys:
            await admin.delete(key)
            await (admin.set(key, "x") if value == "string" else admin.rpush(key, "x"))
        await service.client.get("/users/u")
        assert (await service.client.delete("/users/u")).status_code == 200
        for key in (key for key in keys if "{u:u}" in key and not key.endswith((":events", ":version"))):
            await (admin.set(key, "x") if value == "string" else admin.rpush(key, "x"))
        await whole_contract(service)


@asynchronous
async def test_what_is_gone_of_a_history_is_counted_and_the_rest_is_shown(shared_valkey: Valkey) -> None:
    async with served(shared_valkey, "gone:") as (service, admin):
        for user in ("log", "version", "both"):
            await service.client.post("/events", json={"events": [{**EVENT, "user_id": user}]})
            await service.recommend(user_id=user)
        await service.settled()
        await admin.delete("gone:{u:log}:events", "gone:{u:version}:version")
        await admin.delete("gone:{u:both}:events", "gone:{u:both}:version")
        shown = {user: await service.client.get(f"/users/{user}") for user in ("log", "version", "both")}
        metrics = (await service.client.get("/metrics")).text
    assert {user: answer.status_code for user, answer in shown.items()} == {"log": 200, "version": 200, "both": 404}
    assert [event["item_id"] for event in shown["version"].json()["history"]] == ["1"]
    assert shown["log"].json()["history"] == []
    for part in shown:
        assert f'gpt4rec_histories_missing_total{{part="{part}"}} 1.0' in metrics
