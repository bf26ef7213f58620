"""The same question again: its list is kept, is what a new one would be, and is gone once anything has changed."""

from __future__ import annotations

import asyncio
import pickle
from pathlib import Path
from typing import Any

import orjson
import pytest
from redis.asyncio import Redis

from loadtests.engine.interleavings import interleaved
from service.answers.kept_lists import Question
from service.engine.engine import Engine
from service.metrics.service_metrics import value_of
from service.recommend import known_lists
from service.recommend.list_key import question_of
from service.recommend.request_plan import Plan
from service.rules.enforce import Enforcer
from service.store.records import Subject
from service.store.store import Store
from service.store.store_settings import StoreSettings
from tests.support.aio import asynchronous, eventually
from tests.support.fakes import FakeEngine
from tests.support.processes import ids
from tests.support.serving import Service, serving
from tests.support.valkey import Valkey

BEAM = {"decoding": {"strategy": "beam"}, "k": 5}
# Where the engine is a fake one, nothing is kept unless a test says so (`tests.support.serving`).
KEEPS: dict[str, Any] = {"answers_mib": 1.0}
OF_THE_ANSWER = ("request_id", "list_id", "latency_ms")
POLICIES = {
    "segments": [{"name": "all", "decoding": {"strategy": "beam"}}],
    "default": "all",
    "rules": [{"name": "one", "kind": "at_most", "each": "category", "n": 1}],
}


def counted(service: Service) -> dict[str, float]:
    counter = service.runtime.metrics.kept_lists
    return {outcome: value_of(counter, outcome) for outcome in ("hit", "miss", "never")}


async def runs(service: Service, **body: Any) -> int:
    """Runs of the decoder that a request takes."""
    before = len(service.engine.jobs)
    await service.recommend(**body)
    return len(service.engine.jobs) - before


@asynchronous
async def test_a_kept_list_is_what_a_new_one_would_be(two_versions: tuple[Path, Path], tmp_path: Path) -> None:
    one, two = (Engine.open(folder, device="cpu", threads=1) for folder in two_versions)
    found = await interleaved(tmp_path, (one, two), 25, seed=3)
    for engine in (one, two):
        engine.close()
    assert not found.stale
    assert found.answers == 50 and 3 < found.hits < 45, "without hits, and without misses, nothing is tested"


@asynchronous
async def test_a_hit_runs_no_graph_and_counts_as_a_new_list_does(shared_valkey: Valkey) -> None:
    async with serving(redis_url=shared_valkey.url, prefix="hit:", **KEEPS) as service:
        await service.post_events("u", "1", "2")
        await service.settled()
        first = await service.recommend(user_id="u", **BEAM)
        jobs, encoded = len(service.engine.jobs), len(service.engine.encoded)
        again = await service.recommend(user_id="u", **BEAM)
        assert (len(service.engine.jobs), len(service.engine.encoded)) == (jobs, encoded)
        assert counted(service) == {"hit": 1, "miss": 1, "never": 0}
        assert all(first[name] != again[name] for name in ("request_id", "list_id"))
        rest = [{name: value for name, value in one.items() if name not in OF_THE_ANSWER} for one in (first, again)]
        assert rest[0] == rest[1]
        await service.settled()
        labels = ("gpt4rec", "full", "", "new", "beam")
        assert value_of(service.runtime.metrics.recommendations, *labels) == 2
        client: Any
        async with Redis.from_url(shared_valkey.url) as client:
            keys = [key async for key in client.scan_iter(match="hit:exposures:*")]
            shown = [orjson.loads(fields[b"e"]) for key in keys for _, fields in await client.xrange(key)]
    assert {one["list_id"] for one in shown} == {first["list_id"], again["list_id"]}
    assert {one["request_id"] for one in shown} == {first["request_id"], again["request_id"]}


@pytest.mark.parametrize(
    "body",
    [
        {"events": [{"item_id": "3"}]},
        {"user_id": "u", "candidates": ["3", "4"]},
        {"user_id": "u", "explain": True},
        {"user_id": "u", "seed": "fresh"},
        {"user_id": "u", "events": [{"item_id": "3", "timestamp": 1_700_000_000}]},
    ],
)
@asynchronous
async def test_some_lists_are_made_anew_each_time(body: dict[str, Any], shared_valkey: Valkey) -> None:
    async with serving(redis_url=shared_valkey.url, prefix="anew:", **KEEPS) as service:
        assert [await runs(service, **body, **BEAM) for _ in range(2)] == [1, 1]
        assert counted(service)["never"] == 2


@asynchronous
async def test_another_question_is_another_list(shared_valkey: Valkey) -> None:
    other: list[dict[str, Any]] = [
        {"k": 6}, {"exclude": ["7"]}, {"exclude_seen": False}, {"filter": {"category": ["Drama"]}},
        {"decoding": {"strategy": "beam", "beam_width": 2}}, {"decoding": {"strategy": "temperature"}},
        {"decoding": {"strategy": "temperature"}, "seed": 4}, {"page": True},
        {"rules": [{"name": "one", "kind": "pin", "item": "9", "position": 1}]},
        {"diversity": {"method": "mmr", "weight": 0.5}}, {"user_id": "v"},
    ]  # fmt: skip
    async with serving(redis_url=shared_valkey.url, prefix="other:", **KEEPS) as service:
        for user in ("u", "v"):
            await service.post_events(user, "1", "2")
        base: dict[str, Any] = {"user_id": "u", **BEAM}
        assert [await runs(service, **base) for _ in range(2)] == [1, 0]
        assert [await runs(service, **{**base, **more}) for more in other] == [1] * len(other)
        assert [await runs(service, **{**base, **more}) for more in other] == [0] * len(other)
        titled = await service.recommend(**base, fields=["category"])
        assert all("category" in item for item in titled["items"]) and await runs(service, **base) == 0


@asynchronous
async def test_what_a_list_is_found_by_is_short_however_long_the_request_is(
    shared_valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the list itself is measured, so a key of any length would take memory past every bound."""
    asked: list[Question | None] = []

    def question(plan: Plan) -> Question | None:
        asked.append(question_of(plan))
        return asked[-1]

    monkeypatch.setattr(known_lists, "question_of", question)
    long = [f"{n:0>128}" for n in range(64)]
    rules = [{"name": f"r{n}", "kind": "boost", "where": {"category": long}, "times": 2.0} for n in range(16)]
    body = {"rules": rules, "exclude": long, "filter": {"category": ["Drama", *long[1:]]}, "scene": "s" * 64}
    async with serving(redis_url=shared_valkey.url, prefix="long:", **KEEPS) as service:
        await service.post_events("u", "1", "2")
        assert [await runs(service, user_id="u", **body, **BEAM) for _ in range(2)] == [1, 0]
    assert len(pickle.dumps(asked[0])) < 1_500


@asynchronous
async def test_lists_are_gone_with_events_erasures_rules_models_and_modes(shared_valkey: Valkey) -> None:
    """An event or an erasure may come from any replica."""
    elsewhere = Store(StoreSettings(url=shared_valkey.url, prefix="gone:"))
    async with serving(redis_url=shared_valkey.url, prefix="gone:", operator=True, **KEEPS) as service:
        client, kept, ann = service.client, service.runtime.space.kept, Subject("user", "u")
        await service.post_events("u", "1", "2")
        assert [await runs(service, user_id="u", **BEAM) for _ in range(2)] == [1, 0]
        await service.post_events("u", "3", start_ms=1_700_000_100_000)
        assert [await runs(service, user_id="u", **BEAM) for _ in range(2)] == [1, 0]
        assert (await client.put("/ops/policies", json={**POLICIES, "reason": "a rule"})).status_code == 200
        assert [await runs(service, user_id="u", **BEAM) for _ in range(2)] == [1, 0]
        forced = {"mode": "fallback", "reason": "a drill"}
        assert (await client.put("/ops/fallback", json=forced)).status_code == 200
        assert (await service.recommend(user_id="u", **BEAM))["rung"] == "item_cf"
        assert (await client.put("/ops/fallback", json={**forced, "mode": "auto"})).status_code == 200
        assert await runs(service, user_id="u", **BEAM) == 0
        serving_model = service.runtime.space.serving
        serving_model.replace(serving_model.model)
        assert [await runs(service, user_id="u", **BEAM) for _ in range(2)] == [1, 0]
        assert kept.of(ann) == 1
        await elsewhere.erase(ann)

        async def gone() -> bool:
            return kept.of(ann) == 0

        await eventually(gone, within_s=20.0)
        assert ids(await service.recommend(user_id="u", **BEAM))[0] == "39"
        await service.post_events("u", "1")
        await service.recommend(user_id="u", **BEAM)
        assert kept.of(ann) == 1
        assert (await client.delete("/users/u")).status_code == 200
        assert kept.of(ann) == 0
    await elsewhere.close()


@asynchronous
async def test_a_list_that_was_under_way_during_an_erasure_is_not_kept(shared_valkey: Valkey) -> None:
    async with serving(redis_url=shared_valkey.url, prefix="under:", operator=True, **KEEPS) as service:
        await service.post_events("u", "1", "2")
        await service.settled()
        service.engine.go.clear()
        asked = asyncio.create_task(service.recommend(user_id="u", budget_ms=30_000, **BEAM))
        await asyncio.to_thread(service.engine.entered.wait)
        assert (await service.client.delete("/users/u")).status_code == 200
        service.engine.go.set()
        assert len((await asked)["items"]) == 5
        assert service.runtime.space.kept.of(Subject("user", "u")) == 0 == len(service.runtime.space.kept)


@asynchronous
async def test_degraded_lists_are_not_kept_and_nothing_is_with_no_memory_for_it(shared_valkey: Valkey) -> None:
    async with serving(redis_url=shared_valkey.url, prefix="low:", **KEEPS) as service:
        await service.post_events("u", "1", "2")
        service.engine.fail_full_width = True
        assert (await service.recommend(user_id="u", **BEAM))["rung"] == "narrow"
        service.engine.fail_full_width = False
        assert (await service.recommend(user_id="u", **BEAM))["rung"] == "full"
    async with serving(redis_url=shared_valkey.url, prefix="low:", answers_mib=0) as service:
        assert [await runs(service, user_id="u", **BEAM) for _ in range(2)] == [1, 1]
        assert counted(service) == {"hit": 0, "miss": 0, "never": 0}


@asynchronous
async def test_a_list_whose_rules_could_not_be_evaluated_is_not_kept(
    shared_valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is as without rules, and the next list may have them."""
    rules = [{"name": "one", "kind": "pin", "item": "9", "position": 1}]
    async with serving(redis_url=shared_valkey.url, prefix="failed:", **KEEPS) as service:
        await service.post_events("u", "1", "2")
        with monkeypatch.context() as patch:
            patch.setattr(Enforcer, "of", lambda *_: 1 // 0)
            failed = await service.recommend(user_id="u", rules=rules, **BEAM)
        again = await service.recommend(user_id="u", rules=rules, **BEAM)
        assert [one["rules"][0]["result"] for one in (failed, again)] == ["not_kept", "bit"]
        assert ids(again)[0] == "9" != ids(failed)[0]
        assert await runs(service, user_id="u", rules=rules, **BEAM) == 0


@asynchronous
async def test_without_redis_no_list_of_a_user_is_kept_and_none_is_used() -> None:
    async with serving(FakeEngine(), **KEEPS) as service:
        answers = [await service.recommend(user_id="u", **BEAM) for _ in range(2)]
        assert [answer["reason"] for answer in answers] == ["state_unavailable"] * 2
        assert counted(service) == {"hit": 0, "miss": 0, "never": 2}
