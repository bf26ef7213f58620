"""`/events`, `/sessions/merge`, `/users` and `/items/…/similar`."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Any

from service.schemas.list_answers import SimilarAnswer
from service.schemas.user_answers import EraseAnswer, EventsAnswer, MergeAnswer, UserAnswer
from tests.support.aio import asynchronous
from tests.support.serving import Service, serving
from tests.support.valkey import Valkey


def event(**fields: Any) -> dict[str, Any]:
    return {"user_id": "u1", "item_id": "1", "type": "view", "timestamp": 1_700_000_000, **fields}


async def post(service: Service, *events: dict[str, Any]) -> Any:
    return await service.client.post("/events", json={"events": list(events)})


@asynchronous
async def test_events_are_stored_once_and_unknown_items_listed(shared_valkey: Valkey) -> None:
    async with serving(redis_url=shared_valkey.url, prefix="once:", operator=True) as service:
        batch = [event(), event(item_id="999", event_id="e1"), event(user_id=None, session_id="s1")]
        first, again = await post(service, *batch), await post(service, *batch)
        user = (await service.client.get("/users/u1")).json()
    EventsAnswer.model_validate(first.json())
    assert first.json() | {"request_id": ""} == {
        "accepted": 3, "duplicates": 0, "unknown_items": ["999"], "warnings": [], "request_id": "",
    }  # fmt: skip
    assert (again.json()["accepted"], again.json()["duplicates"]) == (0, 3)
    assert [e["item_id"] for e in user["history"]] == ["1", "999"]


@asynchronous
async def test_an_event_id_sent_again_is_stored_once_and_named_if_it_names_another_event(
    shared_valkey: Valkey,
) -> None:
    key = "a key of at least sixteen characters"
    async with serving(redis_url=shared_valkey.url, prefix="ids:", operator=True, hash_user_ids=key) as service:
        await post(service, event(event_id="e1"))
        later = (await post(service, event(event_id="e1", timestamp=1_700_000_500))).json()
        other = (await post(service, event(event_id="e1", item_id="2"))).json()
        user = (await service.client.get("/users/u1")).json()
    assert (later["accepted"], later["duplicates"]) == (0, 1)
    assert later["warnings"] == []
    assert (other["accepted"], other["duplicates"]) == (0, 1)
    assert other["warnings"] == [
        "not stored, because these event ids came before with another item or type; give each event its own id: e1"
    ]
    EventsAnswer.model_validate(other)
    assert [(e["item_id"], e["timestamp_ms"]) for e in user["history"]] == [("1", 1_700_000_000_000)]


@asynchronous
async def test_unknown_event_types_are_stored_and_named(shared_valkey: Valkey) -> None:
    types = ["view", "hover", "hover", "impression", *(f"{n}{'x' * 60}" for n in range(100, 300))]
    async with serving(redis_url=shared_valkey.url, prefix="types:", operator=True) as service:
        answer = (await post(service, *(event(type=kind, item_id=str(n)) for n, kind in enumerate(types)))).json()
        one = (await post(service, event(type="zoom", user_id="u2"))).json()
        user = (await service.client.get("/users/u2")).json()
    EventsAnswer.model_validate(answer)
    assert answer["accepted"] == len(types)
    (warning,) = answer["warnings"]
    assert warning.startswith('stored, but the model reads these event types as "other": hover, 100x')
    assert warning.endswith(" and 191 more") and len(warning) < 1000
    assert (one["accepted"], one["warnings"]) == (
        1, ['stored, but the model reads these event types as "other": zoom'],
    )  # fmt: skip
    assert [e["type"] for e in user["history"]] == ["zoom"]


@asynchronous
async def test_the_same_moment_may_be_written_in_four_ways(shared_valkey: Valkey) -> None:
    async with serving(redis_url=shared_valkey.url, prefix="time:") as service:
        moments = ["2023-11-14T22:13:20Z", "2023-11-14T23:13:20+01:00", 1_700_000_000, 1_700_000_000_000]
        answer = await post(service, *(event(timestamp=moment) for moment in moments))
    assert (answer.json()["accepted"], answer.json()["duplicates"]) == (1, 3)


@asynchronous
async def test_a_bad_batch_lists_every_bad_event_and_stores_none(shared_valkey: Valkey) -> None:
    async with serving(redis_url=shared_valkey.url, prefix="bad:", operator=True) as service:
        answer = await post(
            service,
            event(),
            event(timestamp="2026-01-01T12:00:00"),
            event(timestamp=int(time.time()) + 86_400),
            event(user_id="a\nb"),
            event(surprise=1),
            event(user_id=None),
            event(item_id=None),
            event(timestamp=-1),
            event(timestamp=True),
            event(timestamp="yesterday"),
            event(item_id="x" * 129),
            event(item_id=""),
            event(type="impression", item_id=None),
        )
        stored = await service.client.get("/users/u1")
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert {fault["index"] for fault in answer.json()["errors"]} == set(range(1, 13))
    assert "without a zone" in answer.json()["errors"][0]["message"]
    assert stored.status_code == 404


@asynchronous
async def test_searches_and_impressions_are_no_history(shared_valkey: Valkey) -> None:
    async with serving(redis_url=shared_valkey.url, prefix="signals:", operator=True) as service:
        answer = await post(
            service,
            event(type="search", item_id=None, query="space"),
            event(type="impression", item_id="7", event_id="of-both"),
            event(item_id="7", event_id="of-both"),
            event(type="impression", item_id=None, list_id="of-a-whole-list"),
            event(type="impression", item_id=None, request_id="of-another", event_id="another"),
        )
        user = (await service.client.get("/users/u1")).json()
        shown = await service.recommend(events=[{"item_id": "5", "type": "impression"}])
    assert answer.json()["accepted"] == 5
    assert (shown["segment"], shown["warnings"]) == ("new", ["no list is made from events of these types: impression"])
    assert [e["item_id"] for e in user["history"]] == ["7"]


@asynchronous
async def test_the_store_away_acknowledges_nothing() -> None:
    async with serving(operator=True) as service:
        for method, path, body in [
            ("POST", "/events", {"events": [event()]}),
            ("POST", "/sessions/merge", {"session_id": "s1", "user_id": "u1"}),
            ("GET", "/users/u1", None),
            ("DELETE", "/users/u1", None),
        ]:
            answer = await service.client.request(method, path, json=body)
            assert answer.status_code == 503
            assert answer.json()["type"] == "urn:gpt4rec:problem:state_unavailable"
            assert int(answer.headers["retry-after"]) >= 1
            assert "unix" not in answer.text
        ready = await service.client.get("/readyz")
        similar = await service.client.get("/items/3/similar")
    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
    assert similar.status_code == 200


@asynchronous
async def test_a_session_moves_to_the_user_who_logged_in(shared_valkey: Valkey) -> None:
    async with serving(redis_url=shared_valkey.url, prefix="merge:", operator=True) as service:
        await post(service, event(user_id=None, session_id="s1", item_id="4"), event(item_id="2"))
        body = {"session_id": "s1", "user_id": "u1"}
        first = (await service.client.post("/sessions/merge", json=body)).json()
        again = (await service.client.post("/sessions/merge", json=body)).json()
        user = (await service.client.get("/users/u1")).json()
    MergeAnswer.model_validate(first)
    assert (first["merged"], again["merged"]) == (1, 0)
    assert {e["item_id"] for e in user["history"]} == {"2", "4"}


@asynchronous
async def test_an_erased_user_is_unknown(shared_valkey: Valkey) -> None:
    async with serving(redis_url=shared_valkey.url, prefix="erase:", operator=True) as service:
        await post(service, event(user_id="a/b ü"))
        await service.recommend(user_id="a/b ü")
        await service.settled()
        shown = await service.client.get("/users/a%2Fb%20%C3%BC")
        erased = await service.client.delete("/users/a%2Fb%20%C3%BC")
        after = await service.client.get("/users/a%2Fb%20%C3%BC")
        again = await service.client.delete("/users/a%2Fb%20%C3%BC")
    UserAnswer.model_validate(shown.json())
    EraseAnswer.model_validate(erased.json())
    assert shown.json()["user_id"] == "a/b ü"
    assert erased.json()["deleted"] >= 3
    assert after.status_code == 404
    assert again.json()["deleted"] == 0


@asynchronous
async def test_similar_items_are_the_neighbours() -> None:
    async with serving() as service:
        answer = await service.client.get("/items/3/similar", params={"k": 1})
        unknown = await service.client.get("/items/nope/similar")
        too_many = await service.client.get("/items/3/similar", params={"k": 101})
    SimilarAnswer.model_validate(answer.json())
    assert [item["item_id"] for item in answer.json()["items"]] == ["4"]
    assert unknown.status_code == 404
    assert (too_many.status_code, too_many.json()["errors"][0]["loc"]) == (422, ["query", "k"])


@asynchronous
async def test_the_same_call_to_two_replicas_at_once_stores_each_event_once_and_both_succeed(
    shared_valkey: Valkey,
) -> None:
    async with AsyncExitStack() as stack:
        url, more = shared_valkey.url, {"prefix": "hedged:", "operator": True}
        one, two = [await stack.enter_async_context(serving(redis_url=url, **more)) for _ in range(2)]  # type: ignore[arg-type]
        for user in range(10):
            batch = [
                event(user_id=f"h{user}", item_id="1", event_id="e1"),
                event(user_id=f"h{user}", item_id="2"),  # known by what it says
                event(user_id=f"h{user}", item_id=None, type="search", query="lamp", event_id="e3"),
                event(user_id=f"h{user}", item_id="3", type="impression"),
            ]
            answers = await asyncio.gather(*(post(replica, *batch) for replica in (one, two, one)))
            assert [answer.status_code for answer in answers] == [200, 200, 200]
            assert sum(answer.json()["accepted"] for answer in answers) == len(batch)
            assert sum(answer.json()["duplicates"] for answer in answers) == 2 * len(batch)
            shown = (await two.client.get(f"/users/h{user}")).json()
            assert [stored["item_id"] for stored in shown["history"]] == ["1", "2"]
            assert await one.runtime.space.store._link.command(
                "XLEN", f"hedged:{{u:h{user}}}:signals", timeout_s=5.0
            ) == 2  # fmt: skip
