"""A flood on one space at the gate: it is answered from the popular items or with 429, and the other space as ever."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx

from tests.support.aio import asynchronous, eventually
from tests.support.serving import Service
from tests.support.shops import shops
from tests.support.valkey import Valkey

BODY = {"user_id": "u", "k": 3}


async def recommended(service: Service, space: str, **fields: Any) -> httpx.Response:
    return await service.client.post(f"/spaces/{space}/recommend", json={**BODY, **fields})


@asynchronous
async def test_a_flood_on_one_space_is_bounded_and_the_other_space_is_answered_in_full(
    shared_valkey: Valkey, tmp_path: Path
) -> None:
    few = {"settings": {"inflight_max": 2, "deadline_ms": 30_000}}
    async with shops(tmp_path, shared_valkey.url, {"flooded": few, "quiet": {}}, redis_prefix="crowded:") as service:
        flooded = service.app.state.runtime.spaces["flooded"]
        engine = flooded.space.model.engine
        engine.go.clear()
        held = [asyncio.ensure_future(recommended(service, "flooded")) for _ in range(2)]

        async def running() -> bool:
            return bool(engine.entered.is_set())

        await eventually(running, 20.0)
        hurried = await recommended(service, "flooded", page=True)
        assert hurried.status_code == 200
        answer = hurried.json()
        assert (answer["rung"], answer["reason"], answer["cursor"]) == ("popular", "overload", None)
        assert [item["item_id"] for item in answer["items"]] == ["0", "1", "2"]
        refused = await service.client.post("/spaces/flooded/events", content=b"{ not even JSON")
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert "in progress" in refused.json()["detail"]
        assert (await service.client.get("/spaces/flooded/readyz")).status_code == 200

        quiet = await recommended(service, "quiet")
        assert (quiet.status_code, quiet.json()["rung"]) == (200, "full")
        assert (await recommended(service, "default")).json()["rung"] == "full"
        engine.go.set()
        assert [one.json()["rung"] for one in await asyncio.gather(*held)] == ["full", "full"]
        assert (await recommended(service, "flooded")).json()["rung"] == "full"
        text = (await service.client.get("/metrics")).text
        assert 'gpt4rec_crowded_total{outcome="hurried",space="flooded"} 1.0' in text
        assert 'gpt4rec_crowded_total{outcome="refused",space="flooded"} 1.0' in text
        assert 'gpt4rec_inflight{space="flooded"} 0.0' in text


@asynchronous
async def test_beyond_twice_the_bound_lists_are_refused_too_and_never_with_a_5xx(
    shared_valkey: Valkey, tmp_path: Path
) -> None:
    few = {"settings": {"inflight_max": 1, "deadline_ms": 30_000}}
    async with shops(tmp_path, shared_valkey.url, {"flooded": few}, redis_prefix="crowded2:") as service:
        engine = service.app.state.runtime.spaces["flooded"].space.model.engine
        engine.go.clear()
        many = [asyncio.ensure_future(recommended(service, "flooded")) for _ in range(40)]

        async def answered() -> bool:
            return sum(one.done() for one in many) == 39

        await eventually(answered, 20.0)
        engine.go.set()
        statuses = [one.status_code for one in await asyncio.gather(*many)]
    assert set(statuses) <= {200, 429}
    assert statuses.count(200) >= 1
