"""Three spaces with room for two models: no request fails, and every list says why it is not the model's."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from service.api.runtime import SpaceRuntime
from service.assembly.space import open_space
from service.common.request_context import RequestContext
from service.lifecycle.evictable_engine import EvictableEngine, Footprint
from service.lifecycle.resident_models import ResidentModels
from service.metrics.service_metrics import Metrics
from service.schemas.recommend_request import RecommendRequest
from service.settings.service_settings import Settings
from service.settings.space import Space
from tests.support.aio import asynchronous, eventually
from tests.support.valkey import Valkey

MODEL = {"gpt4rec"}


async def opened(
    stack: AsyncExitStack, models: ResidentModels, name: str, valkey: Valkey, artifact: Path, folder: Path
) -> SpaceRuntime:
    async def redis_url() -> str:
        return valkey.url

    times = {"deadline_ms": 5000.0, "deadline_max_ms": 5000.0, "redis_read_timeout_ms": 2000.0}
    settings = Settings.model_validate({
        "artifact": artifact, "redis_prefix": f"evicted-{name}:", "data_dir": folder, "device": "cpu",
        "answers_mib": 0, **times,
    })  # fmt: skip
    return await open_space(stack, Metrics(), Space.default(settings), redis_url, residents=models)


async def answer(space: SpaceRuntime) -> tuple[str, str | None]:
    now = time.monotonic()
    body = await space.recommender.recommend(
        RecommendRequest(session_id="s", k=3), RequestContext("r", now, now, time.monotonic)
    )
    assert len(body["items"]) == 3
    return body["source"], body["reason"]


def evicted(space: SpaceRuntime) -> bool:
    engine = space.model.engine
    assert isinstance(engine, EvictableEngine)
    return engine.evicted


@asynchronous
async def test_spaces_that_do_not_all_fit_take_turns_and_no_request_fails(
    shared_valkey: Valkey, random_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Footprint, "nbytes", lambda _: 10)
    async with AsyncExitStack() as stack:
        models = ResidentModels(20, stays_s=0.05)
        stack.push_async_callback(models.close)
        spaces = [await opened(stack, models, name, shared_valkey, random_artifact, tmp_path) for name in "abc"]
        assert [evicted(space) for space in spaces] == [True, False, False]
        assert await answer(spaces[0]) in [("item_cf", "model_evicted"), ("popular", "model_evicted")]
        assert await answer(spaces[2]) == ("gpt4rec", None)

        async def again() -> bool:
            return (await answer(spaces[0]))[0] == "gpt4rec"

        await eventually(again, 30.0)
        assert models.nbytes == 20

        seen: list[set[str]] = [set(), set(), set()]

        async def callers(number: int) -> None:
            while not all(MODEL | {"evicted"} <= of_space for of_space in seen):
                source, reason = await answer(spaces[number])
                assert (source in MODEL) == (reason is None), (source, reason)
                assert reason in (None, "model_evicted", "overload", "deadline")
                seen[number].add(source if reason is None else reason.removeprefix("model_"))
                assert models.nbytes <= 20
                await asyncio.sleep(0)

        async with asyncio.timeout(60.0):
            await asyncio.gather(*(callers(number) for number in range(3) for _ in range(2)))
        for space in spaces:
            assert space.model.healthy
            assert space.guard.breaker.state == "closed"
