"""Every route there is, walked by callers who may not: nothing is changed, and nothing is read that should not be."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from redis.asyncio import Redis
from starlette.routing import Route

from service.access import keys
from tests.contract.test_erasure import scan
from tests.support.aio import asynchronous
from tests.support.serving import Service, serving
from tests.support.valkey import Valkey

USER, ITEM, REASON = "user-4711", "item-4712", "reason-4713"
SECRETS = {
    "shop": "shop-secret",
    "crm": "crm-secret",
    "feed": "feed-secret",
    "alice": "alice-secret",
    "prom": "prom-secret",
}
EVERYTHING: dict[str, Any] = {
    "api_keys": f"{keys.entry('shop', SECRETS['shop'])},{keys.entry('crm', SECRETS['crm'], users=True)},"
    f"{keys.entry('feed', SECRETS['feed'], items=True)}",
    "ops_tokens": keys.entry("alice", SECRETS["alice"]),
    "metrics_tokens": keys.entry("prom", SECRETS["prom"]),
    "playground": True,
}
# What anybody may see: probes, what is running, what the API is, and pages that ask for a token themselves.
OPEN = {"/", "/healthz", "/readyz", "/version", "/docs", "/openapi.json", "/assets/{name}", "/ops", "/playground"}
FOR_KEYS = {"/recommend", "/recommend/batch", "/events", "/sessions/merge", "/items/{item_id:path}/similar",
            "/items/{item_id:path}/together", "/baskets/recommend",
            "/playground/about",
            "/playground/items", "/playground/sample", "/playground/lists", "/playground/why"}  # fmt: skip
FEATURES = ("/users/{user_id:path}/features", "/sessions/{session_id:path}/features")
# Reading items is for frontends, changing them is not.
ITEMS = {"/items", "/items/{item_id:path}", "/items/{item_id:path}/disable", "/items/{item_id:path}/enable"}
FOR_USERS = {"/users/{user_id:path}", *FEATURES}
FOR_METRICS = {"/metrics"}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
BODIES = {
    "/recommend": {"user_id": USER},
    "/baskets/recommend": {"user_id": USER, "items": ["1"]},
    "/recommend/batch": {"requests": [{"user_id": USER}]},
    "/events": {"events": [{"user_id": USER, "item_id": ITEM, "type": "view", "timestamp": 1_700_000_009_000}]},
    "/sessions/merge": {"session_id": "s1", "user_id": USER},
    **{path: {"features": {"taste": "an intruder"}} for path in FEATURES},
    "/ops/fallback": {"mode": "fallback", "reason": "an intruder"},
    "/ops/policies": {"segments": [{"name": "all", "decoding": {"strategy": "greedy"}}]},
    "/ops/models/{version}/activate": {"reason": "an intruder"},
    "/ops/models/rollback": {"reason": "an intruder"},
    "/ops/experiments": {"name": "x", "arms": [{"name": "a", "share": 0.5}, {"name": "b", "share": 0.5}]},
    "/ops/experiments/{name}/stop": {"reason": "an intruder"},
    "/ops/experiments/{name}/promote": {"arm": "b", "reason": "an intruder"},
    "/ops/holdout": {"share": 0.1, "model": "fake-1", "reason": "an intruder"},
    "/playground/lists": {"request": {"events": [{"item_id": "1"}]}, "beside": {"rung": "popular"}},
    "/playground/why": {"events": [{"item_id": "1"}]},
    "/items/{item_id:path}": {"title": "an intruder"},
    "/items": {"item_id": "1", "title": "an intruder"},
}
CALLERS: dict[str, dict[str, str]] = {
    "nobody": {},
    "a-wrong-token": {"Authorization": "Bearer wrong"},
    "a-wrong-scheme": {"Authorization": f"Basic {SECRETS['alice']}"},
    "an-empty-token": {"Authorization": "Bearer "},
    "a-digest": {"Authorization": f"Bearer {keys.digest(SECRETS['alice']).hex()}"},
    "a-token-in-a-cookie": {"Cookie": f"token={SECRETS['alice']}"},
    "a-name": {"X-API-Key": "alice"},
}


def routes(app: FastAPI) -> Iterator[tuple[str, str]]:
    """(path, method) of every route, in the document or not."""
    for route in app.router.routes:
        assert isinstance(route, Route), "a kind of route that this walk does not know"
        for method in route.methods or ():
            yield route.path, method


def needed(path: str, method: str) -> str:
    """Whose secret a route takes. What is not named here is for operators: a new route is closed until it is."""
    if path in ITEMS:
        return "key" if method in ("GET", "HEAD") else "items"
    kinds = {"nobody": OPEN, "key": FOR_KEYS, "users": FOR_USERS, "metrics": FOR_METRICS}
    return next((kind for kind, paths in kinds.items() if path in paths), "operator")


async def call(service: Service, path: str, method: str, headers: dict[str, str]) -> httpx.Response:
    values = {"user_id": USER, "session_id": "s1", "item_id": "1", "name": "base.css"}
    filled = re.sub(r"\{(\w+)(:path)?\}", lambda m: values.get(m[1], "fake-1"), path)
    body = BODIES.get(path) if method not in ("GET", "HEAD") else None
    return await service.client.request(method, filled, headers=headers, json=body)


def everything(valkey: Valkey, prefix: str) -> AbstractAsyncContextManager[Service]:
    """A service with every route and every kind of secret."""
    return serving(redis_url=valkey.url, prefix=prefix, **EVERYTHING)


async def seen(service: Service, redis: Redis, prefix: str) -> list[object]:
    """All that a caller could have changed."""
    runtime = service.runtime
    # Replicas give signs of life there, whoever calls.
    kept = await scan(redis, prefix, but=b"{ops}:replicas")
    return [kept, runtime.space.mode.mode, runtime.space.policies.current, runtime.space.model, runtime.access]


async def filled(service: Service) -> None:
    """A user, a mode with a reason, and an audit."""
    ops = {"Authorization": f"Bearer {SECRETS['alice']}"}
    event = {"user_id": USER, "item_id": ITEM, "type": "view", "timestamp": 1_700_000_000_000}
    assert (await service.client.post("/events", json={"events": [event]}, headers=ops)).status_code == 200
    body = {"mode": "auto", "reason": REASON}
    assert (await service.client.put("/ops/fallback", json=body, headers=ops)).status_code == 200
    await service.settled()


@pytest.mark.parametrize("caller", CALLERS)
@asynchronous
async def test_no_request_without_a_token_changes_or_reads_what_it_should_not(
    shared_valkey: Valkey, caller: str
) -> None:
    prefix = f"walk-{caller}:"
    async with Redis.from_url(shared_valkey.url) as redis, everything(shared_valkey, prefix) as service:
        await filled(service)
        before = await seen(service, redis, prefix)
        for path, method in routes(service.app):
            answer = await call(service, path, method, CALLERS[caller])
            if needed(path, method) == "nobody":
                assert answer.status_code == 200, (method, path)
            else:
                assert answer.status_code == 401, (method, path)
                assert answer.headers["content-type"] == "application/problem+json"
                assert answer.headers["www-authenticate"] == "Bearer"
            told = answer.text + str(answer.headers)
            for name in (USER, ITEM, REASON, *SECRETS.values(), "an intruder"):
                assert name not in told.replace(f"/users/{USER}", ""), (method, path)
        assert await seen(service, redis, prefix) == before


@pytest.mark.parametrize(
    ("name", "may"),
    [
        ("shop", {"nobody", "key"}),
        ("crm", {"nobody", "key", "users"}),
        ("feed", {"nobody", "key", "items"}),
        ("prom", {"nobody", "metrics"}),
    ],
)
@asynchronous
async def test_each_secret_opens_its_own_routes_and_no_others(shared_valkey: Valkey, name: str, may: set[str]) -> None:
    prefix = f"own-{name}:"
    async with Redis.from_url(shared_valkey.url) as redis, everything(shared_valkey, prefix) as service:
        await filled(service)
        before = await seen(service, redis, prefix)
        for headers in ({"Authorization": f"Bearer {SECRETS[name]}"}, {"X-API-Key": SECRETS[name]}):
            for path, method in routes(service.app):
                if needed(path, method) in may:
                    continue
                answer = await call(service, path, method, headers)
                assert answer.status_code in (401, 403), (method, path)
        assert await seen(service, redis, prefix) == before
        for path, method in routes(service.app):
            if needed(path, method) in may:
                answer = await call(service, path, method, {"Authorization": f"Bearer {SECRETS[name]}"})
                assert answer.status_code not in (401, 403), (method, path)


@asynchronous
async def test_no_spelling_of_a_path_and_no_other_method_goes_around_a_token(shared_valkey: Valkey) -> None:
    prefix = "spell:"
    spellings = [
        "//ops/fallback", "/ops//fallback", "/ops/fallback/", "/OPS/FALLBACK", "/ops/./fallback", "/x/../ops/fallback",
        "/ops/fallback;x", "/ops%2ffallback", "/assets/../ops/fallback", "/assets/..%2f..%2fservice%2fauth.py",
        "/assets/%2e%2e/pages.py", "/assets/pages.py", "/assets/playground.html", f"/users//{USER}", f"/users/{USER}/",
        f"/items/../users/{USER}/similar", f"/users/%2e%2e/users/{USER}", "/ops/stream?token=alice-secret",
        "/ops/fallback?token=alice-secret", "/metrics/", "/metrics?x",
    ]  # fmt: skip
    async with Redis.from_url(shared_valkey.url) as redis, everything(shared_valkey, prefix) as service:
        await filled(service)
        before = await seen(service, redis, prefix)
        for path in [*spellings, *sorted({path for path, _ in routes(service.app)} - OPEN)]:
            for method in METHODS:
                raw = httpx.URL("http://test").copy_with(raw_path=path.encode())
                answer = await service.client.request(method, raw, json=BODIES["/ops/fallback"])
                assert answer.status_code in (401, 404, 405, 422), (method, path)
                assert "alice" not in answer.text.replace("alice-secret", "")
                assert REASON not in answer.text
                assert "import " not in answer.text
        assert await seen(service, redis, prefix) == before


@asynchronous
async def test_without_any_secret_configured_users_ops_and_audit_stay_closed(shared_valkey: Valkey) -> None:
    prefix = "bare:"
    async with (
        Redis.from_url(shared_valkey.url) as redis,
        serving(redis_url=shared_valkey.url, prefix=prefix, playground=True) as service,
    ):
        await service.post_events(USER, "1")
        await service.settled()
        before = await seen(service, redis, prefix)
        for path, method in routes(service.app):
            if path.startswith(("/ops", "/users")):
                answer = await call(service, path, method, {})
                assert answer.status_code == (403 if path.startswith("/users") else 404), (method, path)
        assert await seen(service, redis, prefix) == before
