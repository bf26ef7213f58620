"""Two spaces in one process and on one Redis: neither touches what belongs to the other."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from pathlib import Path

import orjson
import pytest

from service.api.runtime import SpaceRuntime
from service.assembly.space import open_space
from service.common.request_context import RequestContext
from service.common.request_errors import NotFound
from service.metrics.service_metrics import Metrics
from service.policies import policies
from service.schemas.recommend_request import RecommendRequest
from service.settings.service_settings import Settings
from service.settings.space import Space
from tests.support.aio import asynchronous
from tests.support.fakes import FakeEngine
from tests.support.valkey import Valkey

NOW_MS = 1_700_000_100_000
EVENTS = {"events": [{"user_id": "u", "item_id": "i1", "type": "view", "timestamp": 1_700_000_000_000}]}
ONE_SEGMENT = {"default": "everybody", "segments": [{"name": "everybody", "decoding": {"strategy": "greedy"}}]}


async def opened(stack: AsyncExitStack, metrics: Metrics, url: str, prefix: str, folder: Path) -> SpaceRuntime:
    async def redis_url() -> str:
        return url

    times = {"deadline_ms": 2000.0, "redis_read_timeout_ms": 2000.0, "redis_write_timeout_ms": 2000.0}
    settings = Settings.model_validate({"redis_url": url, "redis_prefix": prefix, "data_dir": folder, **times})
    return await open_space(stack, metrics, Space.default(settings), redis_url, FakeEngine())


async def rung(space: SpaceRuntime) -> str:
    now = time.monotonic()
    context = RequestContext("r", now, now, time.monotonic)
    return str((await space.recommender.recommend(RecommendRequest(user_id="u", k=3), context))["rung"])


@asynchronous
async def test_what_one_space_does_is_not_seen_in_the_other(shared_valkey: Valkey, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        metrics, url = Metrics(), shared_valkey.url
        one = await opened(stack, metrics, url, "spaces-one:", tmp_path / "a")
        two = await opened(stack, metrics, url, "spaces-two:", tmp_path / "a")

        await one.ingest.append(one.ingest.parse(orjson.dumps(EVENTS), NOW_MS))
        with pytest.raises(NotFound):
            await two.ingest.show("u", NOW_MS)
        await two.ingest.erase("u")
        assert len((await one.ingest.show("u", NOW_MS))["history"]) == 1

        assert [await rung(one), await rung(two)] == ["full", "full"]
        await one.mode.set("fallback", reason="drill", actor="alice")
        await two.policy_keeper.set(policies.parse(ONE_SEGMENT), actor="bob", reason=None)

        # Replicas know of it only through Redis: their copies lie in another folder.
        replica_of_one = await opened(stack, metrics, url, "spaces-one:", tmp_path / "b")
        replica_of_two = await opened(stack, metrics, url, "spaces-two:", tmp_path / "b")
        for space in (one, replica_of_one):
            assert (await rung(space), space.policy_keeper.origin) == ("popular", "file")
            assert [entry["actor"] for entry in await space.audit.read()] == ["alice"]
        for space in (two, replica_of_two):
            assert (await rung(space), space.policy_keeper.origin) == ("full", "operator")
            assert space.policies.current.names == ("everybody",)
            assert [entry["actor"] for entry in await space.audit.read()] == ["bob"]
        assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted(
            [one.space.copy_of("mode").name, two.space.copy_of("policies").name]
        )


def test_the_default_space_has_the_keys_and_files_of_the_settings() -> None:
    described = {"redis_url": "redis://user:secret@host:6379/0", "redis_prefix": "shop:", "data_dir": "data"}
    settings = Settings.model_validate(described)
    space = Space.default(settings)
    assert (space.key_prefix, space.policies, space.deployed) == ("shop:", settings.policies, None)
    assert space.copy_of("mode") == Path("data/mode-a54cd000af66.json")
    other = Space.default(settings.model_copy(update={"redis_prefix": "other:"}))
    assert other.copy_of("mode") != space.copy_of("mode")
