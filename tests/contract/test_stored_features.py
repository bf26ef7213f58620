"""Stored features: written, read, used, merged, erased; and ids that hold slashes are told apart from the routes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from redis.asyncio import Redis

from service.artifact.features import ContextVocabulary, Vocabulary
from service.schemas.user_answers import FeaturesAnswer, FeaturesDeletedAnswer, UserAnswer
from service.store.user_features import FEATURES_BYTES_MAX
from tests.contract.test_erasure import scan
from tests.support.aio import asynchronous
from tests.support.fakes import N_ITEMS, FakeArtifact, FakeEngine
from tests.support.serving import Service, serving
from tests.support.valkey import Valkey

CONTEXT = ContextVocabulary.fit({"taste": ["sweet", "sour"], "age": ["20", "30"]}, ["home"], [], 0)


@dataclass(frozen=True)
class Described(FakeArtifact):
    """Items as those of the fake, and a model that knows two features."""

    @property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary({str(i): i for i in range(N_ITEMS)}, CONTEXT, has_time=True)


def engine() -> FakeEngine:
    made = FakeEngine()
    made.artifact = Described(made.artifact.catalogue)
    return made


async def put(service: Service, path: str, features: dict[str, Any]) -> dict[str, Any]:
    answer = await service.client.put(f"{path}/features", json={"features": features})
    assert answer.status_code == 200, answer.text
    return FeaturesAnswer.model_validate(answer.json()).model_dump()


async def read_by_the_model(service: Service, **body: Any) -> list[int]:
    await service.recommend(**body)
    found: list[int] = service.engine.jobs[-1].request.context.tolist()
    return found


def rows(**given: str) -> list[int]:
    return list(CONTEXT.encode(given))


@asynchronous
async def test_lists_use_stored_features_unless_the_request_names_others(shared_valkey: Valkey) -> None:
    async with serving(engine(), redis_url=shared_valkey.url, prefix="feat-used:", operator=True) as service:
        await service.post_events("u", "1")
        assert await read_by_the_model(service, user_id="u") == rows()
        answer = await put(service, "/users/u", {"taste": "sweet", "age": 30, "colour": "red"})
        assert answer["features"] == {"taste": "sweet", "age": 30, "colour": "red"}
        assert answer["warnings"] == ["features: the model does not use these names: colour"]
        assert await read_by_the_model(service, user_id="u") == rows(taste="sweet", age="30")
        assert await read_by_the_model(service, user_id="u") == rows(taste="sweet", age="30")  # from memory
        assert await read_by_the_model(service, user_id="u", features=None) == rows(taste="sweet", age="30")
        assert await read_by_the_model(service, user_id="u", features={"taste": "sour"}) == rows(taste="sour")
        assert await read_by_the_model(service, user_id="u", features={}) == rows()
        assert await read_by_the_model(service, user_id="other") == rows()
        await service.post_events("u", "2", start_ms=1_700_000_009_000)
        await service.settled()
        assert await read_by_the_model(service, user_id="u") == rows(taste="sweet", age="30")
        await put(service, "/users/u", {"taste": "sour"})
        assert await read_by_the_model(service, user_id="u", scene="home") == rows(taste="sour", scene="home")
        shown = UserAnswer.model_validate((await service.client.get("/users/u")).json())
        assert shown.features == {"taste": "sour"}


@asynchronous
async def test_features_count_on_every_replica_at_once_and_without_a_history(shared_valkey: Valkey) -> None:
    started: dict[str, Any] = {"redis_url": shared_valkey.url, "prefix": "feat-replicas:", "operator": True}
    async with serving(engine(), **started) as one, serving(engine(), **started) as two:
        await one.post_events("u", "1")
        for taste in ("sweet", "sour"):
            await put(one, "/users/u", {"taste": taste})
            await put(two, "/users/new", {"taste": taste})
            for service in (one, two):
                assert await read_by_the_model(service, user_id="u") == rows(taste=taste)
                assert await read_by_the_model(service, user_id="new") == rows(taste=taste)
        deleted = await two.client.delete("/users/u/features")
        assert FeaturesDeletedAnswer.model_validate(deleted.json()).deleted
        assert not (await two.client.delete("/users/u/features")).json()["deleted"]
        assert await read_by_the_model(one, user_id="u") == rows()
        assert (await one.client.get("/users/u/features")).status_code == 404
        assert (await one.client.get("/users/u")).status_code == 200  # the history stays


@asynchronous
async def test_a_merge_fills_in_what_the_users_own_features_do_not_say(shared_valkey: Valkey) -> None:
    async with serving(engine(), redis_url=shared_valkey.url, prefix="feat-merge:", operator=True) as service:
        await put(service, "/users/u", {"taste": "sweet"})
        await put(service, "/sessions/s", {"taste": "sour", "age": 20})
        assert await read_by_the_model(service, session_id="s") == rows(taste="sour", age="20")
        body = {"session_id": "s", "user_id": "u"}
        assert (await service.client.post("/sessions/merge", json=body)).json()["merged"] == 0
        assert (await service.client.get("/users/u/features")).json()["features"] == {"taste": "sweet", "age": 20}
        assert (await service.client.get("/sessions/s/features")).status_code == 404


@asynchronous
async def test_an_erasure_takes_the_features_with_it_and_the_audit_names_nobody(shared_valkey: Valkey) -> None:
    prefix = "feat-erase:"
    async with (
        Redis.from_url(shared_valkey.url) as redis,
        serving(engine(), redis_url=shared_valkey.url, prefix=prefix, operator=True) as service,
    ):
        await put(service, "/users/user-4711", {"taste": "secret-4712"})
        assert b"secret-4712" in await scan(redis, prefix)
        entry = (await service.client.get("/ops/audit")).json()["entries"][0]
        assert (entry["action"], entry["actor"], entry["change"]) == ("features", "tester", "stored")
        assert (await service.client.delete("/users/user-4711")).json()["deleted"] == 1
        left = await scan(redis, prefix)
        assert b"user-4711" not in left
        assert b"secret-4712" not in left


@asynchronous
async def test_ids_that_hold_slashes_are_told_apart_from_the_routes(shared_valkey: Valkey) -> None:
    users = ["a/features", "a/b", "/features", "features", "a/features/features", "é/ü", "a%2Fb"]
    async with serving(engine(), redis_url=shared_valkey.url, prefix="feat-slash:", operator=True) as service:
        await service.post_events("a", "2")
        for user in users:
            await service.post_events(user, "1")
            await put(service, f"/users/{quote(user, safe='')}", {"taste": user})
        for user in users:
            path = f"/users/{quote(user, safe='')}"
            assert (await service.client.get(f"{path}/features")).json()["features"] == {"taste": user}
            assert (await service.client.get(path)).json()["features"] == {"taste": user}
        assert (await service.client.get("/users/a/b/features")).json()["user_id"] == "a/b"
        assert (await service.client.get("/users/a/features")).status_code == 404
        for user in users:
            path = f"/users/{quote(user, safe='')}"
            assert (await service.client.delete(path)).json()["user_id"] == user
            assert (await service.client.get(path)).status_code == 404
        assert (await service.client.get("/users/a")).status_code == 200


@asynchronous
async def test_features_are_bounded_and_of_the_types_that_a_request_may_have(shared_valkey: Valkey) -> None:
    async with serving(engine(), redis_url=shared_valkey.url, prefix="feat-bounds:", operator=True) as service:
        most = {f"name-{n}": "x" * 64 for n in range(32)}
        await put(service, "/users/u", most)
        refused: list[Any] = [
            {**most, "one": 1},
            {str(n): "é" * 256 for n in range(FEATURES_BYTES_MAX // 512)},
            {"taste": ["sweet"]},
            {"taste": None},
            {"": 1},
        ]
        for features in refused:
            answer = await service.client.put("/users/u/features", json={"features": features})
            assert answer.status_code == 422, features
        assert (await service.client.put("/users/u/features", json={})).status_code == 422
        assert (await service.client.get("/users/u/features")).json()["features"] == most
        kept = {"whole": 2**63 - 1, "part": 0.1, "yes": True, "text": "é"}
        await put(service, "/users/u", kept)
        assert (await service.client.get("/users/u/features")).json()["features"] == kept
        await put(service, "/users/u", {})
        assert (await service.client.get("/users/u/features")).status_code == 404


@asynchronous
async def test_what_is_written_while_a_session_is_merged_is_not_lost(shared_valkey: Valkey) -> None:
    async with serving(engine(), redis_url=shared_valkey.url, prefix="feat-race:", operator=True) as service:
        body = {"session_id": "s", "user_id": "u"}
        for turn in range(8):
            await put(service, "/sessions/s", {f"before-{turn}": True})
            await asyncio.gather(
                service.client.post("/sessions/merge", json=body), put(service, "/sessions/s", {f"while-{turn}": True})
            )
        await service.client.post("/sessions/merge", json=body)
        found = (await service.client.get("/users/u/features")).json()["features"]
        assert {f"while-{turn}" for turn in range(8)} <= found.keys()
