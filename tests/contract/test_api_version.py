"""Everything is served below `/v1` too: the same answers to the same callers, under the same names in the metrics."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from service.api.api_version import VERSION, take_off
from tests.contract.test_every_route import CALLERS, SECRETS, call, everything, filled, needed, routes
from tests.support.aio import asynchronous
from tests.support.serving import serving
from tests.support.valkey import Valkey

ORIGIN = "https://shop.example"
BODY: dict[str, Any] = {"events": [{"item_id": "3"}], "k": 3, "seed": 7}
OPERATOR = {"Authorization": f"Bearer {SECRETS['alice']}"}
# Of answers that are the same otherwise.
VARYING = re.compile(
    r'"(request_id|list_id)":"[^"]*"|"(latency_ms|age_s|p)":[-0-9.e]+|"(seen_s|uptime_s|time|at)":[^,}]*'
)
# Figures of the process and of the second in which they are read; `/metrics` counts the call before.
MOVING = {"/ops/status", "/ops/figures", "/metrics", "/ops/stream"}


def told(answer: httpx.Response) -> tuple[int, str, dict[str, str]]:
    """An answer without what differs from one request to the next; links are told without the version."""
    text = VARYING.sub("", answer.text).replace(f"{VERSION}/", "/").replace(f'"{VERSION}"', '""')
    kept = {name: value for name, value in answer.headers.items() if name not in ("x-request-id", "content-length")}
    return answer.status_code, text, kept


@pytest.mark.parametrize("caller", ["nobody", "operator"])
@asynchronous
async def test_every_route_answers_below_the_version_as_it_does_without(shared_valkey: Valkey, caller: str) -> None:
    headers = CALLERS.get(caller, OPERATOR)
    async with everything(shared_valkey, f"v1-{caller}:") as service:
        await filled(service)
        for path, method in routes(service.app):
            changes = method not in ("GET", "HEAD")
            if (path in MOVING and (needed(path, method) == "nobody" or headers is OPERATOR)) or (
                changes and headers is OPERATOR
            ):
                continue
            old, new = [await call(service, f"{at}{path}", method, headers) for at in ("", VERSION)]
            if path in ("/openapi.json", "/"):
                assert (old.status_code, new.status_code) == (200, 200)
                continue  # links and servers begin with the version
            assert told(old) == told(new), (method, path)


@asynchronous
async def test_changes_below_the_version_are_those_without_it(shared_valkey: Valkey) -> None:
    async with serving(redis_url=shared_valkey.url, prefix="v1-changes:", operator=True) as service:
        client = service.client
        event = {"user_id": "a/b", "item_id": "3", "type": "view", "timestamp": 1_700_000_000_000}
        assert (await client.post("/v1/events", json={"events": [event]})).json()["accepted"] == 1
        assert (await client.post("/events", json={"events": [event]})).json()["duplicates"] == 1
        # A slash of an id stays one, and only a plain `/features` at the end names the features.
        await client.put("/v1/users/a%2Ffeatures/features", json={"features": {"taste": "jazz"}})
        assert (await client.get("/users/a%2Ffeatures/features")).json()["features"] == {"taste": "jazz"}
        assert (await client.get("/v1/users/a%2Fb")).json()["history"][0]["item_id"] == "3"
        assert (await client.get("/v1/users/a/b")).json()["user_id"] == "a/b"
        mode = {"mode": "fallback", "reason": "test"}
        assert (await client.put("/v1/ops/fallback", json=mode)).status_code == 200
        assert (await service.recommend(**BODY))["reason"] == "forced"
        assert (await client.delete("/v1/users/a%2Fb")).json()["deleted"] > 0
        assert (await client.get("/users/a%2Fb")).status_code == 404


@asynchronous
async def test_one_question_gets_one_list_with_the_version_and_without() -> None:
    async with serving(exposures=False) as service:
        old, new = [(await service.client.post(path, json=BODY)).json() for path in ("/recommend", "/v1/recommend")]
    assert old["items"] == new["items"]


@asynchronous
async def test_the_metrics_know_one_route_whichever_path_was_called() -> None:
    async with serving(exposures=False) as service:
        for path in ("/recommend", "/v1/recommend", "/v1/recommend"):
            assert (await service.client.post(path, json=BODY)).status_code == 200
        await service.client.get("/v1/items/3/similar")
        await service.client.get("/v1/nothing")
        text = (await service.client.get("/v1/metrics")).text
    assert 'request_duration_seconds_count{route="/recommend",source="gpt4rec",status="200"} 3.0' in text
    labels = set(re.findall(r'request_duration_seconds_count\{route="([^"]*)"', text))
    assert labels == {"/recommend", "/items/{item_id}/similar", "unmatched"}


@asynchronous
async def test_only_one_version_is_taken_off_and_only_a_whole_one() -> None:
    async with serving(operator=True) as service:
        for path in (
            "/v1/v1/recommend",
            "/v2/recommend",
            "/V1/recommend",
            "/v1recommend",
            "/v1//recommend",
            "/v1/recommend/",
        ):
            assert (await service.client.post(path, json=BODY)).status_code == 404, path
        for path in ("/v1", "/v1/"):
            assert (await service.client.get(path)).json()["name"] == "gpt4rec"
        assert (await service.client.head("/v1/healthz")).status_code == 200
        assert (await service.client.get("/v1/recommend")).headers["allow"] == "POST"


@asynchronous
async def test_other_origins_may_call_below_the_version_what_they_may_call_without() -> None:
    async with serving(cors_origins=ORIGIN, operator=True) as service:
        for path, shared in (("/v1/recommend", True), ("/v1/ops/fallback", False), ("/v1/users/u", False)):
            headers = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
            answer = await service.client.options(path, headers=headers)
            assert ("access-control-allow-origin" in answer.headers) == shared, path
            answer = await service.client.get(path, headers={"Origin": ORIGIN})
            assert ("access-control-allow-origin" in answer.headers) == shared, path


@asynchronous
async def test_a_process_that_stops_still_answers_below_the_version_and_refuses_operators_there() -> None:
    async with serving(exposures=False, operator=True) as service:
        service.runtime.process_state.draining = True
        assert (await service.client.post("/v1/recommend", json=BODY)).status_code == 200
        assert (await service.client.get("/v1/healthz")).status_code == 200
        assert (await service.client.get("/v1/ops/status")).status_code == 503
        service.runtime.process_state.draining = False


@asynchronous
async def test_links_and_servers_stay_below_what_the_caller_called() -> None:
    async with serving(root_path="/shop", playground=True) as service:
        for at in ("", "/v1", "/shop", "/shop/v1"):
            version = "/v1" if at.endswith("/v1") else ""
            links = (await service.client.get(at or "/")).json()["links"]
            assert links["recommend"] == f"/shop{version}/recommend"
            about = (await service.client.get(f"{at}/playground/about")).json()
            assert about["links"]["API"] == f"/shop{version}/docs"
            document = (await service.client.get(f"{at}/openapi.json")).json()
            assert document["servers"] == [{"url": f"/shop{version}"}]


@pytest.mark.parametrize("raw", [b"/v1/users/a%2Fb", None])
def test_the_path_as_it_was_sent_loses_the_version_too(raw: bytes | None) -> None:
    scope: dict[str, Any] = {"path": "/v1/users/a/b"} | ({} if raw is None else {"raw_path": raw})
    assert take_off(scope) == VERSION
    assert scope == {"path": "/users/a/b"} | ({} if raw is None else {"raw_path": b"/users/a%2Fb"})
    assert take_off(scope) == ""
