"""Which space a request means: by its key, its path or a header, and what it gets when they do not agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from service.common.errors import SettingsError, StartupError
from tests.support.aio import asynchronous
from tests.support.serving import Service
from tests.support.shops import secret_file, shops
from tests.support.valkey import Valkey

SPACE = "X-GPT4Rec-Space"
KEYS = "api_keys_file"
TOKENS = "ops_tokens_file"


def closed(folder: Path) -> dict[str, dict[str, Any]]:
    """Two closed spaces, with keys and operators of their own."""
    return {
        name: {
            KEYS: str(secret_file(folder, f"{name}.keys", f"shop:{name}-key:users:items")),
            TOKENS: str(secret_file(folder, f"{name}.tokens", f"{name}-operator:{name}-token")),
        }
        for name in ("shoes", "books")
    }


PROCESS = {"api_keys": "front:front-key:users", "ops_tokens": "root:root-token", "metrics_tokens": "prom:prom-token"}


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def outcome(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["type"].removeprefix("urn:gpt4rec:problem:")


async def space_of(service: Service, path: str = "", **headers: str) -> str:
    answer = await service.client.get(f"{path}/version", headers={k.replace("_", "-"): v for k, v in headers.items()})
    assert answer.status_code == 200, answer.text
    found: str = answer.json()["space"]
    return found


@asynchronous
async def test_open_spaces_are_chosen_by_path_or_header_and_the_default_needs_no_name(
    shared_valkey: Valkey, tmp_path: Path
) -> None:
    async with shops(tmp_path, shared_valkey.url, {"shoes": {}, "books": {}}, redis_prefix="chosen:") as service:
        assert await space_of(service) == "default"
        assert await space_of(service, "/spaces/shoes") == "shoes"
        assert await space_of(service, "/spaces/books/v1") == "books"
        assert await space_of(service, "/spaces/default") == "default"
        assert await space_of(service, **{SPACE: "shoes"}) == "shoes"
        assert await space_of(service, "/spaces/shoes", **{SPACE: "shoes"}) == "shoes"
        # An unknown secret opens nothing and chooses nothing.
        assert await space_of(service, "/spaces/shoes", Authorization="Bearer nobody") == "shoes"

        answer = await service.client.get("/spaces/shoes/version", headers={SPACE: "books"})
        assert outcome(answer) == (400, "bad_request")
        both = [(SPACE, "shoes"), (SPACE, "books")]
        assert (await service.client.get("/version", headers=both)).status_code == 400
        assert await space_of_raw(service, [(SPACE, "shoes"), (SPACE, "shoes")]) == "shoes"
        # The name stands before the version of the API, and is one segment of the path.
        for path in ("/v1/spaces/shoes/version", "/spaces//shoes/version", "/spaces"):
            assert (await service.client.get(path)).status_code == 404
        for name in ("hats", "SHOES", "shoes%20", "", "-shoes", "sho:es"):
            for answer in (
                await service.client.get(f"/spaces/{name}/version"),
                await service.client.get("/version", headers={SPACE: name}),
            ):
                assert outcome(answer) == (404, "unknown_space"), name


async def space_of_raw(service: Service, headers: list[tuple[str, str]]) -> str:
    found: str = (await service.client.get("/version", headers=headers)).json()["space"]
    return found


@asynchronous
async def test_a_key_of_a_space_means_that_space_and_opens_no_other(shared_valkey: Valkey, tmp_path: Path) -> None:
    async with shops(tmp_path, shared_valkey.url, closed(tmp_path), redis_prefix="keyed:", **PROCESS) as service:
        client = service.client
        for secret, space in (
            ("shoes-key", "shoes"),
            ("shoes-token", "shoes"),
            ("books-key", "books"),
            ("front-key", "default"),
            ("root-token", "default"),
        ):
            assert await space_of(service, **bearer(secret)) == space
            assert await space_of(service, f"/spaces/{space}", **bearer(secret)) == space
            assert await space_of(service, **bearer(secret), **{SPACE: space}) == space
        # Whether the other space is there makes no difference.
        for other in ("books", "hats", "default"):
            for answer in (
                await client.get(f"/spaces/{other}/version", headers=bearer("shoes-key")),
                await client.get("/version", headers=bearer("shoes-token") | {SPACE: other}),
            ):
                assert outcome(answer) == (403, "forbidden")
        answer = await client.get("/spaces/shoes/version", headers=bearer("front-key"))
        assert answer.status_code == 403
        # The tokens of the process hold in all spaces.
        for secret in ("root-token", "prom-token"):
            assert await space_of(service, "/spaces/books", **bearer(secret)) == "books"
        assert (await client.get("/spaces/shoes/ops/fallback", headers=bearer("root-token"))).status_code == 200
        assert (await client.get("/ops/fallback", headers=bearer("shoes-token"))).status_code == 200
        assert (await client.get("/spaces/hats/version", headers=bearer("root-token"))).status_code == 404


@asynchronous
async def test_who_may_not_know_a_space_cannot_tell_it_from_none(shared_valkey: Valkey, tmp_path: Path) -> None:
    async with shops(tmp_path, shared_valkey.url, closed(tmp_path), redis_prefix="hidden:", **PROCESS) as service:

        def told(answer: httpx.Response) -> tuple[int, dict[str, Any], list[str]]:
            problem = answer.json()
            problem.pop("request_id")
            return answer.status_code, problem, sorted(name for name in answer.headers if name != "x-request-id")

        for headers in ({}, bearer("wrong")):
            for method, path in (("GET", "/version"), ("GET", "/nothing"), ("POST", "/recommend"), ("PUT", "/version")):
                known = await service.client.request(method, f"/spaces/shoes{path}", headers=headers)
                none = await service.client.request(method, f"/spaces/hats{path}", headers=headers)
                assert told(known) == told(none)
                assert outcome(known) == (404, "unknown_space")


@asynchronous
async def test_lists_and_events_belong_to_the_space(shared_valkey: Valkey, tmp_path: Path) -> None:
    event = {"user_id": "u", "item_id": "i1", "type": "view", "timestamp": 1_700_000_000_000}
    async with shops(tmp_path, shared_valkey.url, closed(tmp_path), redis_prefix="lists:", **PROCESS) as service:
        answer = await service.client.post("/events", json={"events": [event]}, headers=bearer("shoes-key"))
        assert answer.status_code == 200, answer.text
        shown = await service.client.get("/users/u", headers=bearer("shoes-key"))
        assert len(shown.json()["history"]) == 1
        for headers in (bearer("books-key"), bearer("front-key")):
            assert (await service.client.get("/users/u", headers=headers)).status_code == 404
        answer = await service.client.put(
            "/spaces/shoes/ops/fallback", json={"mode": "fallback", "reason": "drill"}, headers=bearer("root-token")
        )
        assert answer.status_code == 200
        rungs = []
        for secret in ("shoes-key", "books-key", "front-key"):
            answer = await service.client.post("/recommend", json={"user_id": "u"}, headers=bearer(secret))
            assert answer.status_code == 200, answer.text
            rungs.append(answer.json()["rung"])
        assert rungs == ["popular", "full", "full"]


@asynchronous
async def test_a_space_that_cannot_be_opened_is_named(shared_valkey: Valkey, tmp_path: Path) -> None:
    policies = tmp_path / "bad.yaml"
    policies.write_text("segments: []")
    with pytest.raises(StartupError, match=r"space shoes: .*bad\.yaml"):
        async with shops(tmp_path, shared_valkey.url, {"shoes": {"policies": "bad.yaml"}}, redis_prefix="named:"):
            pass
    with pytest.raises(SettingsError, match=r"spaces\.shoes: GPT4REC_API_KEYS closes the API.* api_keys_file"):
        async with shops(tmp_path, shared_valkey.url, {"shoes": {}}, redis_prefix="named:", api_keys="a:b"):
            pass
    keys = str(secret_file(tmp_path, "keys", "shop:front-key"))
    with pytest.raises(SettingsError, match=r"spaces\.shoes\.api_keys_file: a secret is also one of GPT4REC_API_KEYS"):
        async with shops(tmp_path, shared_valkey.url, {"shoes": {KEYS: keys}}, redis_prefix="named:", **PROCESS):
            pass
