"""What a trace shows of a request, and what it never shows."""

from __future__ import annotations

from typing import Any

from structlog.testing import capture_logs

from service.metrics.text_formats import OPEN_METRICS, PLAIN
from tests.support.aio import asynchronous
from tests.support.serving import serving
from tests.support.traces import traced
from tests.support.valkey import Valkey

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE_ID = CALLER.split("-")[1]
USER, SESSION, KEY, TOKEN = "user-4711", "session-0815", "a-secret-key", "test-token"


@asynchronous
async def test_a_list_is_a_trace_from_the_request_to_the_decoder(shared_valkey: Valkey) -> None:
    with traced(share=0.0) as spans:
        async with serving(redis_url=shared_valkey.url, prefix="traces:") as service:
            await service.post_events("u", "1", "2")
            await service.settled()
            service.runtime.space.states.cache.clear()
            answer = await service.client.post(
                "/recommend", json={"user_id": "u", "k": 3}, headers={"traceparent": CALLER}
            )
            # The decoder's thread notes its spans when the answer is on its way.
            await spans.reach(4)
    assert answer.status_code == 200
    assert spans.names() == ["POST /recommend", "decode", "queue", "store"]
    found = {span.name: span for span in spans.all()}
    request = found["POST /recommend"]
    assert all(span.trace_id == TRACE_ID for span in found.values())
    assert all(span.parent == request.span_id for span in found.values() if span is not request)
    assert request.parent == int(CALLER.split("-")[2], 16)
    for span in found.values():
        assert span.attributes["gpt4rec.deadline_left_ms"] > 0
        assert request.began <= span.began <= span.ended
    body = answer.json()
    for name in ("rung", "source", "segment"):
        assert request.attributes[f"gpt4rec.{name}"] == body[name]
    assert found["decode"].attributes["gpt4rec.batch_rows"] == 1


@asynchronous
async def test_a_history_that_must_be_encoded_shows_the_encoder(shared_valkey: Valkey) -> None:
    with traced(share=0.0) as spans:
        async with serving(redis_url=shared_valkey.url, prefix="traces-encode:") as service:
            events = [{"item_id": "1"}, {"item_id": "2"}]
            body = {"user_id": "u", "events": events}
            answer = await service.client.post("/recommend", json=body, headers={"traceparent": CALLER})
            await spans.reach(6)
    assert answer.json()["rung"] == "full"
    assert spans.names() == ["POST /recommend", "decode", "encode", "queue", "queue", "store"]


@asynchronous
async def test_without_redis_the_store_is_where_it_failed() -> None:
    with traced() as spans:
        async with serving() as service:
            answer = await service.recommend(user_id="u")
    assert answer["reason"] == "state_unavailable"
    store, request = spans.one("store"), spans.one("POST /recommend")
    assert store.attributes["error.type"] == "StoreUnavailable"
    assert request.attributes["gpt4rec.reason"] == "state_unavailable"
    assert not request.failed, "the request was answered"


@asynchronous
async def test_no_span_names_a_user_an_item_a_key_or_a_token(shared_valkey: Valkey) -> None:
    with traced() as spans:
        async with serving(
            redis_url=shared_valkey.url, prefix="traces-private:", api_keys=f"shop:{KEY}:users", operator=True
        ) as service:
            client, keyed = service.client, {"Authorization": f"Bearer {KEY}"}
            event = {"user_id": USER, "item_id": "item-99", "type": "view", "timestamp": 1_700_000_000_000}
            calls: list[tuple[str, str, Any, dict[str, str]]] = [
                ("POST", "/events", {"events": [event]}, keyed),
                ("POST", "/recommend", {"user_id": USER, "events": [{"item_id": "item-99"}], "explain": True}, keyed),
                ("POST", "/recommend", {"user_id": USER, "item_id": {}, "nonsense": USER}, keyed),
                ("POST", "/recommend/batch", {"requests": [{"user_id": USER}, {"session_id": SESSION}]}, keyed),
                ("POST", "/sessions/merge", {"session_id": SESSION, "user_id": USER}, keyed),
                ("GET", f"/users/{USER}", None, keyed),
                ("DELETE", f"/users/{USER}", None, keyed),
                ("GET", f"/nowhere/{USER}?user={USER}", None, keyed),
                ("GET", "/ops/fallback", None, {}),
            ]
            for method, path, body, headers in calls:
                await client.request(method, path, json=body, headers=headers)
            await service.settled()
        shown = spans.all()
    assert len([one for one in shown if not one.parent]) == len(calls)
    for one in shown:
        for private in (USER, SESSION, "item-99", KEY, TOKEN, "shop"):
            assert private not in one.text, one.text


@asynchronous
async def test_log_lines_name_the_trace_and_problems_stay_as_they_are() -> None:
    async def problem() -> tuple[Any, list[Any]]:
        async with serving() as service:
            headers = {"traceparent": CALLER, "x-request-id": "r1"}
            with capture_logs() as lines:
                answer = await service.client.post("/recommend", content=b"{", headers=headers)
        return answer.json(), [line.get("trace_id") for line in lines if line["event"] == "request"]

    plain, named = await problem()
    assert named == [None]
    with traced():
        assert await problem() == (plain, [TRACE_ID])


@asynchronous
async def test_probes_and_scrapes_are_no_traces() -> None:
    with traced() as spans:
        async with serving() as service:
            for path in ("/healthz", "/readyz", "/metrics", "/version"):
                await service.client.get(path)
    assert spans.names() == ["GET /version"]


@asynchronous
async def test_a_scraper_that_accepts_openmetrics_gets_exemplars_that_lead_to_traces(shared_valkey: Valkey) -> None:
    with traced(share=0.0):
        async with serving(redis_url=shared_valkey.url, prefix="traces-exemplars:") as service:
            client = service.client
            await client.post("/recommend", json={"user_id": "u"})
            await client.post("/recommend", json={"user_id": "u"}, headers={"traceparent": CALLER})
            # As Prometheus asks.
            accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1"
            opened = await client.get("/metrics", headers={"Accept": accept})
            plain = await client.get("/metrics")
    assert opened.headers["content-type"] == OPEN_METRICS.content_type
    assert plain.headers["content-type"] == PLAIN.content_type
    with_exemplar = {
        sample.name: sample.exemplar.labels
        for family in OPEN_METRICS.read(opened.text)
        for sample in family.samples
        if sample.exemplar is not None
    }
    measured = ("request_duration", "stage_duration")
    assert with_exemplar == {f"gpt4rec_{name}_seconds_bucket": {"trace_id": TRACE_ID} for name in measured}
    assert TRACE_ID not in plain.text
    names = {family.name for family in PLAIN.read(plain.text) if not family.name.endswith("_created")}
    assert names == {family.name for family in OPEN_METRICS.read(opened.text)}
