"""A sampled list stays the same until the history or the hour changes, on every replica."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, cast

import pytest

from service.artifact.artifact import Artifact
from service.engine.engine import Engine
from tests.support.aio import asynchronous
from tests.support.processes import ids
from tests.support.serving import Service, serving
from tests.support.valkey import Valkey

SAMPLED = {"strategy": "temperature", "temperature": 2.0}


@asynchronous
async def test_a_sampled_list_is_stable_on_all_replicas_until_something_happens(
    shared_valkey: Valkey, random_artifact: Path
) -> None:
    engines = [Engine(Artifact.open(random_artifact), device="cpu") for _ in range(2)]
    url = shared_valkey.url
    try:
        async with (
            serving(cast("Any", engines[0]), redis_url=url, prefix="stable:") as one,
            serving(cast("Any", engines[1]), redis_url=url, prefix="stable:") as two,
        ):
            hour = -1
            while hour != int(time.time()) // 3600:  # once more if the hour has changed in between
                hour = int(time.time()) // 3600
                lists = [ids(await listed(service)) for service in (one, two, one)]
            assert lists[0] == lists[1] == lists[2]
            assert ids(await listed(one, k=3)) == lists[0][:3], "a longer list continues the short one"
            fresh = {tuple(ids(await listed(one, seed="fresh"))) for _ in range(4)}
            assert len(fresh) > 1
            await one.post_events("u", "i1", start_ms=1_700_000_100_000)
            assert ids(await listed(two)) != lists[0]
    finally:
        for engine in engines:
            engine.close()


async def listed(service: Service, **more: Any) -> dict[str, Any]:
    return await service.recommend(user_id="u", decoding=SAMPLED, exclude_seen=False, **{"k": 8, **more})


@pytest.mark.parametrize("seed", [-1, 2**63, 1.5, True, "again", [1], ""])
@asynchronous
async def test_other_seeds_are_named_as_faults(seed: Any) -> None:
    async with serving() as service:
        answer = await service.client.post("/recommend", json={"user_id": "u", "seed": seed})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["loc"] == ["seed"]
