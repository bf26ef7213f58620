"""What holds for every request: ids, limits, problem documents, keys, metrics, logs, shutdown."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import structlog

from service.cli.ops_text import audit_lines, fallback_lines, models_lines, policies_lines, status_lines
from service.common import logs
from service.history.ingest import Ingest
from service.metrics.service_metrics import value_of
from service.schemas.answer import Problem
from service.schemas.ops_answers import AuditAnswer, FallbackAnswer, PoliciesAnswer
from service.schemas.service_answers import HealthAnswer, ReadyAnswer, VersionAnswer
from tests.support.aio import asynchronous
from tests.support.serving import serving
from tests.support.valkey import Valkey

EVENTS = [{"item_id": "3"}]
OPS = {"Authorization": "Bearer ops-secret"}
TOKENS = "alice:ops-secret,bob:other-secret"


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


@pytest.mark.parametrize("given", ["abc-1.2:3", "A" * 128])
@asynchronous
async def test_a_sane_request_id_comes_back(given: str) -> None:
    async with serving() as service:
        answer = await service.client.get("/healthz", headers={"X-Request-Id": given})
    assert answer.headers["x-request-id"] == given == answer.json()["request_id"]


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, 'a"b', "a;b"])
@asynchronous
async def test_any_other_request_id_is_replaced(given: str) -> None:
    async with serving() as service:
        answer = await service.client.get("/nope", headers={"X-Request-Id": given})
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff", 400),
        (b"[" * 100_000, 400),
        (b"[]", 422),
        (b"{}", 422),
        (b'{"user_id": 1}', 422),
        (b'{"user_id": "u", "k": 0}', 422),
        (b'{"user_id": "u", "k": 101}', 422),
        (b'{"user_id": "u", "k": true}', 422),
        (b'{"user_id": "u", "surprise": 1}', 422),
        (b'{"user_id": "u", "budget_ms": NaN}', 422),
        (b'{"user_id": "u", "k": 1' + b"0" * 400 + b"}", 422),
        (b'{"user_id": "u", "budget_ms": 1' + b"0" * 400 + b"}", 422),
        (b'{"user_id": "u", "seed": 1' + b"0" * 400 + b"}", 422),
        (b'{"user_id": "u", "features": {"age": 1' + b"0" * 400 + b"}}", 422),
        (b'{"user_id": "u", "events": [{"item_id": "1", "timestamp": 1' + b"0" * 400 + b"}]}", 422),
        (b'{"user_id": "u", "events": [{"item_id": "1", "timestamp": "0001-01-01T00:00:00+14:00"}]}', 422),
        (b'{"user_id": "u", "decoding": {"strategy": "guess"}}', 422),
        (b'{"user_id": "u", "filter": {"colour": ["red"]}}', 422),
        (b'{"user_id": "a\\u0000b"}', 422),
        (b'{"user_id": ""}', 422),
        (json.dumps({"user_id": "u", "events": EVENTS * 201}).encode(), 422),
        (b'{"user_id": "u", "events": [{"item_id": "1", "timestamp": 99999999999999}]}', 422),
    ],
)
@asynchronous
async def test_a_bad_body_is_a_problem_document(body: bytes, status: int) -> None:
    async with serving() as service:
        answer = await service.client.post("/recommend", content=body)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = Problem.model_validate(answer.json())
    assert problem.status == status
    assert (problem.errors is not None) == (status == 422)
    assert "Traceback" not in answer.text


@asynchronous
async def test_a_body_over_the_limit_is_refused_with_and_without_a_length() -> None:
    async def pieces() -> Any:
        for _ in range(40):
            yield b"x" * 1024

    async with serving(max_body_bytes=16_384) as service:
        declared = await service.client.post("/recommend", content=b"x" * 16_385)
        streamed = await service.client.post("/events", content=pieces())
        metrics = (await service.client.get("/metrics")).text
    for answer in (declared, streamed):
        assert (answer.status_code, answer.json()["title"]) == (413, "Body too large")
    assert 'status="413"' in metrics


@asynchronous
async def test_an_unknown_path_or_method_is_a_problem_document() -> None:
    async with serving() as service:
        missing = await service.client.get("/nope")
        wrong = await service.client.get("/recommend")
        of_many = await service.client.post("/users/u1")
    assert (missing.status_code, wrong.status_code) == (404, 405)
    assert wrong.headers["allow"] == "POST"
    assert of_many.headers["allow"] == "DELETE, GET, HEAD"
    for answer in (missing, wrong, of_many):
        Problem.model_validate(answer.json())


@asynchronous
async def test_a_fault_of_the_service_says_nothing_of_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as service:

        async def broken(*_: object) -> dict[str, Any]:
            raise RuntimeError("secret detail")

        monkeypatch.setattr(Ingest, "merge", broken)
        body = {"session_id": "s", "user_id": "u"}
        answer = await service.client.post("/sessions/merge", json=body)
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert Problem.model_validate(answer.json()).request_id == answer.headers["x-request-id"]


# -- keys and tokens


@asynchronous
async def test_without_ops_tokens_ops_is_off() -> None:
    async with serving() as service:
        for path in ("/ops/fallback", "/ops/policies", "/ops/models", "/ops/audit"):
            assert (await service.client.get(path, headers=OPS)).status_code == 404


@asynchronous
async def test_without_keys_and_tokens_users_are_closed_and_the_rest_is_open(shared_valkey: Valkey) -> None:
    async with serving(redis_url=shared_valkey.url, prefix="closed:") as service:
        await service.post_events("u1", "1")
        for method in ("GET", "DELETE"):
            answer = await service.client.request(method, "/users/u1", headers=OPS)
            assert (answer.status_code, Problem.model_validate(answer.json()).title) == (403, "Not allowed")


@asynchronous
async def test_keys_are_asked_for_where_they_are_configured() -> None:
    async with serving(api_keys="shop:k1,crm:k2:users", ops_tokens=TOKENS) as service:

        async def status(method: str, path: str, headers: dict[str, str]) -> int:
            body = {"events": EVENTS} if path == "/recommend" else None
            return (await service.client.request(method, path, headers=headers, json=body)).status_code

        assert await status("POST", "/recommend", {}) == 401
        assert await status("POST", "/recommend", bearer("wrong")) == 401
        assert await status("POST", "/recommend", bearer("k1")) == 200
        assert await status("POST", "/recommend", {"X-API-Key": "k2"}) == 200
        assert await status("GET", "/users/u1", bearer("k1")) == 403
        assert await status("GET", "/users/u1", bearer("k2")) == 503
        assert await status("GET", "/users/u1", OPS) == 503
        assert await status("GET", "/ops/audit", {}) == 401
        assert await status("GET", "/ops/audit", bearer("k1")) == 403
        assert await status("GET", "/ops/audit", OPS) == 200
        assert await status("GET", "/healthz", {}) == 200


# -- /ops


@asynchronous
async def test_a_forced_fallback_names_its_actor_and_is_audited(shared_valkey: Valkey) -> None:
    async with serving(redis_url=shared_valkey.url, prefix="force:", ops_tokens=TOKENS) as service:
        before = await service.client.get("/ops/fallback", headers=OPS)
        forced = await service.client.put(
            "/ops/fallback", headers=OPS, json={"mode": "fallback", "reason": "drill", "expires_in_s": 600}
        )
        answer = await service.recommend(events=EVENTS)
        metrics = (await service.client.get("/metrics")).text
        await service.client.put(
            "/ops/fallback", headers=bearer("other-secret"), json={"mode": "auto", "reason": "over"}
        )
        back = await service.recommend(events=EVENTS)
        audit = await service.client.get("/ops/audit", headers=OPS)
        policies = await service.client.get("/ops/policies", headers=OPS)
    FallbackAnswer.model_validate(before.json())
    FallbackAnswer.model_validate(forced.json())
    AuditAnswer.model_validate(audit.json())
    PoliciesAnswer.model_validate(policies.json())
    assert (before.json()["mode"], before.json()["breaker"]) == ("auto", "closed")
    assert (forced.json()["mode"], forced.json()["actor"]) == ("fallback", "alice")
    assert forced.json()["expires_at"] is not None
    assert (answer["source"], answer["reason"]) == ("item_cf", "forced")
    assert 'gpt4rec_fallback_mode{mode="fallback"} 1.0' in metrics
    assert back["rung"] == "full"
    assert [entry["actor"] for entry in audit.json()["entries"]] == ["bob", "alice"]


@asynchronous
async def test_what_operators_are_told_in_a_shell_holds_no_escape_sequence(shared_valkey: Valkey) -> None:
    """Reasons come from whoever has a token, and are shown to everybody who asks."""
    nasty = "\x1b]0;owned\x07\x9b2J\nthe mode is auto"
    async with serving(redis_url=shared_valkey.url, prefix="words:", ops_tokens=TOKENS) as service:
        policies = (await service.client.get("/ops/policies", headers=OPS)).json()
        body = {"segments": policies["segments"], "default": policies["default"], "reason": nasty}
        await service.client.put("/ops/policies", headers=OPS, json=body)
        forced = {"mode": "fallback", "reason": nasty, "expires_in_s": 600}
        await service.client.put("/ops/fallback", headers=OPS, json=forced)
        told = {
            path: (await service.client.get(f"/ops/{path}", headers=OPS)).json()
            for path in ("fallback", "policies", "models", "audit", "status")
        }
    lines = [
        *fallback_lines(told["fallback"]), *policies_lines(told["policies"]), *models_lines(told["models"]),
        *audit_lines(told["audit"]["entries"]), *status_lines(told["status"]),
    ]  # fmt: skip
    assert all(character.isprintable() for line in lines for character in line)
    shown = "\n".join(lines)
    reason = r"\x1b]0;owned\x07\x9b2J\nthe mode is auto"
    assert shown.count(reason) == 5  # the mode, the policies, the status, and two entries of the audit
    assert f"The mode is fallback, set by alice at {told['fallback']['changed_at']} ({reason})." in lines
    assert [entry["text"] for entry in told["audit"]["entries"]] == [
        f"forced the mode fallback until {told['fallback']['expires_at']}: {nasty}",
        f"set the policies of the segments {', '.join(s['name'] for s in policies['segments'])}: {nasty}",
    ]


@asynchronous
async def test_the_mode_can_be_forced_while_redis_is_away() -> None:
    async with serving(ops_tokens=TOKENS) as service:
        body = {"mode": "fallback", "reason": "drill"}
        forced = await service.client.put("/ops/fallback", headers=OPS, json=body)
        answer = await service.recommend(events=EVENTS)
    assert (forced.status_code, forced.json()["mode"]) == (200, "fallback")
    assert answer["reason"] == "forced"


@asynchronous
async def test_an_audit_with_what_is_no_entry_shows_the_rest(shared_valkey: Valkey) -> None:
    async with serving(redis_url=shared_valkey.url, prefix="audit:", ops_tokens=TOKENS) as service:
        for foreign in (b"not json", b"[]", b"{}"):
            await service.runtime.space.store.append_audit(foreign)
        await service.client.put("/ops/fallback", headers=OPS, json={"mode": "auto", "reason": "drill"})
        audit = await service.client.get("/ops/audit", headers=OPS)
    assert audit.status_code == 200
    assert [entry["reason"] for entry in audit.json()["entries"]] == ["drill"]


# -- probes, metrics, logs


@asynchronous
async def test_probes_and_version_have_the_documented_shape(shared_valkey: Valkey) -> None:
    async with serving(redis_url=shared_valkey.url, prefix="probe:") as service:
        health = await service.client.get("/healthz")
        ready = await service.client.get("/readyz")
        version = await service.client.get("/version")
    HealthAnswer.model_validate(health.json())
    ReadyAnswer.model_validate(ready.json())
    VersionAnswer.model_validate(version.json())
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")
    assert version.json()["model_version"] == "fake-1"


@asynchronous
async def test_a_process_that_stops_is_not_ready_and_still_answers_shops_but_not_operators(
    shared_valkey: Valkey,
) -> None:
    async with serving(redis_url=shared_valkey.url, prefix="draining:", operator=True) as service:
        service.runtime.process_state.draining = True
        ready = await service.client.get("/readyz")
        await service.post_events("u", "item-1")
        shown = await service.client.get("/users/u")
        answer = await service.recommend(events=EVENTS)
        operators = await service.client.get("/ops/status")
        service.runtime.process_state.draining = False
    assert ready.status_code == 503
    assert [event["item_id"] for event in shown.json()["history"]] == ["item-1"]
    assert answer["rung"] == "full"
    assert (operators.status_code, operators.json()["title"]) == (503, "Shutting down")
    assert "retry-after" in operators.headers
    assert {one.headers["connection"] for one in (ready, shown, operators)} == {"close"}


@asynchronous
async def test_no_user_or_item_id_in_metric_labels(shared_valkey: Valkey) -> None:
    async with serving(redis_url=shared_valkey.url, prefix="labels:") as service:
        await service.post_events("user-4711", "item-4712")
        await service.recommend(user_id="user-4711", exclude=["item-4713"])
        await service.client.get("/users/user-4711")
        await service.client.get("/items/item-4712/similar")
        await service.client.get("/no/such/path-4714")
        text = (await service.client.get("/metrics")).text
    assert not re.search("(user|item|path)-47", text)
    for route in ("/users/{user_id}", "/items/{item_id}/similar", "/recommend", "unmatched"):
        assert f'route="{route}"' in text


@contextmanager
def captured(level: str) -> Iterator[io.StringIO]:
    stream = io.StringIO()
    logs.configure(level, stream)
    try:
        yield stream
    finally:
        structlog.reset_defaults()


@asynchronous
async def test_no_secret_in_logs_and_no_user_id(shared_valkey: Valkey) -> None:
    with captured("info") as stream:
        async with serving(
            redis_url=shared_valkey.url, prefix="logs:", ops_tokens=TOKENS, api_keys="shop:key-secret"
        ) as service:
            service.client.headers["Authorization"] = "Bearer key-secret"
            await service.post_events("user-4711", "item-4712")
            await service.recommend(user_id="user-4711")
            service.engine.fail_jobs = True
            await service.recommend(user_id="user-4711")
            await service.client.post("/recommend", content=b'{"user_id": "user-4711", "k": 0}')
            await service.client.get("/users/user-4711", headers=OPS)
            await service.client.delete("/users/user-4711", headers=bearer("wrong-secret"))
    text = stream.getvalue()
    lines = [json.loads(line) for line in text.splitlines()]
    assert not re.search("(user|item|path)-47", text)
    assert "secret" not in text
    answered = next(line for line in lines if line.get("reason") == "model_error" and "rung" in line)
    assert {"request_id", "rung", "reason", "ms", "route", "status"} <= set(answered)


# -- the OpenAPI document


@asynchronous
async def test_the_openapi_document_describes_every_body_and_answer() -> None:
    async with serving() as service:
        document = (await service.client.get("/openapi.json")).json()
    schemas = document["components"]["schemas"]
    assert {"RecommendRequest", "EventsRequest", "MergeRequest", "FallbackRequest", "Problem"} <= set(schemas)
    for reference in re.findall(r'"\$ref": "#/components/schemas/(\w+)"', json.dumps(document)):
        assert reference in schemas
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation.get("description"), f"{method} {path}"
            takes_one = method in ("post", "put", "patch") and not path.endswith(("/disable", "/enable"))
            assert ("requestBody" in operation) == takes_one, f"{method} {path}"
    recommend = document["paths"]["/recommend"]["post"]["responses"]
    assert "application/problem+json" in recommend["422"]["content"]


@pytest.mark.parametrize("keys", ["", "shop:k1"])
@asynchronous
async def test_the_openapi_document_says_who_may_call_what(keys: str) -> None:
    """What it says of a path is what happens to a caller without a key."""
    async with serving(api_keys=keys, ops_tokens=TOKENS) as service:
        document = (await service.client.get("/openapi.json")).json()
        schemes = document["components"]["securitySchemes"]
        assert schemes["OpsToken"]["scheme"] == schemes["ApiKeyBearer"]["scheme"] == "bearer"
        assert (schemes["ApiKey"]["in"], schemes["ApiKey"]["name"]) == ("header", "X-API-Key")
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                where = path.format(user_id="u", session_id="s", item_id="3", version="v", name="n")
                bare = await service.client.request(method, where, content=b"{}")
                assert bool(operation["security"]) == (bare.status_code == 401), f"{method} {path}"
                assert {name for one in operation["security"] for name in one} <= set(schemes)


@asynchronous
async def test_one_client_may_send_many_requests_at_once(shared_valkey: Valkey) -> None:
    import asyncio

    async with serving(redis_url=shared_valkey.url, prefix="many:") as service:
        await service.post_events("u1", "1", "2")
        answers = await asyncio.gather(*(service.recommend(user_id="u1") for _ in range(50)))
        assert {answer["rung"] for answer in answers} == {"full"}
        inflight = value_of(service.runtime.metrics.inflight)
    assert inflight == 0
    assert isinstance(service.client, httpx.AsyncClient)


@asynchronous
async def test_a_client_that_leaves_before_its_body_is_here_is_no_error_of_the_service() -> None:
    async with serving() as service:
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "path": "/recommend",
            "raw_path": b"/recommend", "root_path": "", "scheme": "http", "query_string": b"",
            "headers": [(b"content-length", b"1000")], "client": ("test", 1), "server": ("test", 80),
        }  # fmt: skip
        pieces = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]
        sent: list[Any] = []

        async def receive() -> Any:
            return pieces.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        await service.app(scope, receive, send)
        text = (await service.client.get("/metrics")).text
    assert not sent
    assert 'route="/recommend",source="",status="499"' in text
    assert 'status="500"' not in text
