"""Each list has an id, leaves a record behind its answer, and events that name it are recorded with its id."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import orjson
import pytest
from redis.asyncio import Redis

from service.artifact.artifact import Artifact
from service.artifact.graphs.noise import id_hashes
from service.common.errors import StoreUnavailable
from service.engine.decode.draws import draw
from service.engine.decoding import Decoding
from service.engine.engine import Engine
from service.exposures.exposure import unpacked
from service.metrics.service_metrics import value_of
from service.store.streams.log_streams import LogStreams
from tests.support.aio import asynchronous, eventually
from tests.support.fakes import FakeEngine
from tests.support.serving import Service, serving
from tests.support.valkey import Valkey

T = 1_700_000_000_000


class Recorded:
    """A service, and what it recorded."""

    def __init__(self, service: Service, client: Any, prefix: str) -> None:
        self.service, self._client, self._prefix = service, client, prefix

    async def entries(self, stream: str) -> list[dict[str, Any]]:
        """The bodies of a stream, with the other fields under their names, when nothing waits any more."""
        await self.service.settled()
        keys = sorted([key async for key in self._client.scan_iter(match=f"{self._prefix}{stream}:*")])
        found = [fields for key in keys for _, fields in await self._client.xrange(key)]
        return [
            {**(orjson.loads(fields.get(b"e", b"{}"))), **{k.decode(): v for k, v in fields.items() if k != b"e"}}
            for fields in found
        ]

    def counted(self, outcome: str) -> float:
        return value_of(self.service.runtime.metrics.recording.lists, outcome)


@asynccontextmanager
async def recorded(valkey: Valkey, engine: FakeEngine | None = None, **settings: Any) -> AsyncIterator[Recorded]:
    prefix = f"{uuid.uuid4().hex}:"
    async with (
        Redis.from_url(valkey.url) as client,
        serving(engine, redis_url=valkey.url, prefix=prefix, operator=True, **settings) as service,
    ):
        yield Recorded(service, client, prefix)


@asynchronous
async def test_a_list_is_recorded_as_it_was_answered(shared_valkey: Valkey) -> None:
    async with recorded(shared_valkey) as what:
        await what.service.post_events("u", "1", "2")
        answer = await what.service.recommend(
            user_id="u", k=3, filter={"category": ["Drama"]}, decoding={"strategy": "beam", "beam_width": 2}
        )
        (entry,) = await what.entries("exposures")
        same = ("list_id", "request_id", "source", "scorers", "rung", "reason", "segment", "strategy", "model_version")
        assert {name: entry[name] for name in same} == {name: answer[name] for name in same}
        assert entry["items"] == [item["item_id"] for item in answer["items"]]
        assert entry["log_propensities"] == [0.0] * 3
        assert (entry["drawn"], entry["explored"], entry["seed"], entry["k"]) == (0, False, None, 3)
        assert entry["parameters"] == {"temperature": None, "top_p": None, "beam_width": 2}
        assert (entry["filter"], entry["excluded"]) == ({"category": ["Drama"]}, 2)
        assert (entry["s"], entry["subject"], entry["v"]) == (b"u:u", "u:u", b"1")
        shown = (await what.service.client.get("/users/u")).json()
        assert entry["history_version"] == shown["version"]
        assert "c" not in entry


@asynchronous
async def test_a_list_without_the_history_is_recorded_under_its_user_and_erased_with_them(
    shared_valkey: Valkey,
) -> None:
    async with recorded(shared_valkey) as what:
        answer = await what.service.recommend(user_id="u", k=3, budget_ms=1)
        assert answer["rung"] == "popular"
        (entry,) = await what.entries("exposures")
        assert (entry["s"], entry["subject"]) == (b"u:u", "u:u")
        assert (await what.service.client.delete("/users/u")).status_code == 200
        assert not [entry for entry in await what.entries("exposures") if "items" in entry]


@asynchronous
async def test_a_drawn_list_is_recorded_with_its_law_and_its_candidates(
    shared_valkey: Valkey, random_artifact: Path
) -> None:
    engine = Engine(Artifact.open(random_artifact), device="cpu")
    decoding = Decoding("top_p", top_p=0.7, temperature=1.3)
    asked = {"strategy": "top_p", "top_p": 0.7, "temperature": 1.3}
    try:
        async with recorded(shared_valkey, cast("Any", engine)) as what:
            answer = await what.service.recommend(user_id="u", k=5, decoding=asked, seed=3)
            assert (answer["source"], answer["rung"]) == ("gpt4rec", "full")
            (entry,) = await what.entries("exposures")
            items, scores = unpacked(entry["c"])
            hashes = id_hashes(engine.artifact.catalogue.columns.ids).take(items)
            order, law = draw(hashes, scores, decoding, 3, 5)
            ids = engine.artifact.catalogue.item_ids
            assert entry["items"] == [ids[item] for item in items[order].tolist()]
            assert entry["log_propensities"] == pytest.approx(law.tolist(), abs=1e-4)
            assert (entry["drawn"], entry["seed"]) == (5, 3)
            assert entry["parameters"] == {"temperature": 1.3, "top_p": 0.7, "beam_width": None}
    finally:
        engine.close()


@asynchronous
async def test_lists_below_the_model_and_without_a_subject_are_recorded_too(shared_valkey: Valkey) -> None:
    async with recorded(shared_valkey) as what:
        await what.service.client.put("/ops/fallback", json={"mode": "fallback", "reason": "drill"})
        answer = await what.service.recommend(events=[{"item_id": "5"}], k=2)
        (entry,) = await what.entries("exposures")
        assert (entry["subject"], entry["rung"], entry["strategy"]) == ("", answer["rung"], None)
        assert entry["parameters"] == {"temperature": None, "top_p": None, "beam_width": None}
        assert entry["log_propensities"] == [0.0, 0.0]


@asynchronous
async def test_events_are_recorded_with_what_attribution_needs_duplicates_included(shared_valkey: Valkey) -> None:
    async with recorded(shared_valkey) as what:
        list_id = (await what.service.recommend(user_id="u", k=2))["list_id"]
        event = {
            "user_id": "u", "item_id": "1", "type": "click", "timestamp": T, "value": 2.5, "request_id": "r",
            "list_id": list_id, "event_id": "e",
        }  # fmt: skip
        impression = {"session_id": "s", "item_id": "2", "type": "impression", "timestamp": T, "list_id": list_id}
        for _ in range(2):
            answer = await what.service.client.post("/events", json={"events": [event, impression]})
            assert answer.status_code == 200
        entries = await what.entries("events")
        clicks = [entry for entry in entries if entry["type"] == "click"]
        views = [entry for entry in entries if entry["type"] == "impression"]
        assert len(clicks) == len(views) == 2
        assert {name: clicks[0][name] for name in ("item_id", "value", "request_id", "list_id", "event_id", "s")} == {
            "item_id": "1", "value": 2.5, "request_id": "r", "list_id": list_id, "event_id": "e", "s": b"u:u",
        }  # fmt: skip
        assert views[0]["event_id"] == views[1]["event_id"] != ""
        assert views[0]["list_id"] == list_id
        merge = {"session_id": "s", "user_id": "u"}
        assert (await what.service.client.post("/sessions/merge", json=merge)).status_code == 200
        merged = [orjson.loads(entry["merged"]) for entry in await what.entries("events") if "merged" in entry]
        assert [(one["from"], one["to"]) for one in merged] == [("s:s", "u:u")]
        too_long = {**event, "list_id": "x" * 129}
        assert (await what.service.client.post("/events", json={"events": [too_long]})).status_code == 422


@asynchronous
async def test_a_share_of_the_lists_is_recorded_and_all_have_an_id(shared_valkey: Valkey) -> None:
    async with recorded(shared_valkey, exposures_share=0.5) as what:
        answers = [await what.service.recommend(user_id=f"u{n}", k=1) for n in range(20)]
        entries = await what.entries("exposures")
        recorder = what.service.runtime.space.recorder
        ids = [answer["list_id"] for answer in answers]
        assert {entry["list_id"] for entry in entries} == {one for one in ids if recorder.records(one)}
        assert what.counted("recorded") + what.counted("not_sampled") == 20
        assert ids == sorted(set(ids))


@asynchronous
async def test_switched_off_nothing_is_recorded(shared_valkey: Valkey) -> None:
    async with recorded(shared_valkey, exposures=False) as what:
        assert (await what.service.recommend(user_id="u"))["list_id"]
        await what.service.post_events("u", "1")
        assert await what.entries("exposures") == await what.entries("events") == []


@asynchronous
async def test_answers_come_as_ever_while_redis_is_away_and_lists_wait(tmp_path: Any) -> None:
    async with serving(FakeEngine(), data_dir=tmp_path, exposures_queue_max=2, drain_timeout_s=0.0) as service:
        for n in range(3):
            assert len((await service.recommend(user_id=f"u{n}", k=4))["items"]) == 4
        metrics, recorder = service.runtime.metrics, service.runtime.space.recorder

        async def dropped() -> bool:
            return value_of(metrics.recording.lists, "dropped") == 1

        await eventually(dropped, within_s=20.0)
        assert recorder.lists_waiting == 2
    assert value_of(metrics.recording.lists, "failed") == 2


@asynchronous
async def test_what_waits_when_the_service_stops_is_written(shared_valkey: Valkey) -> None:
    async with serving(redis_url=shared_valkey.url, prefix="stops:") as service:
        list_id = (await service.recommend(user_id="u"))["list_id"]
    client: Any
    async with Redis.from_url(shared_valkey.url) as client:
        keys = [key async for key in client.scan_iter(match="stops:exposures:*")]
        (found,) = [orjson.loads(fields[b"e"]) for key in keys for _, fields in await client.xrange(key)]
    assert found["list_id"] == list_id


POLICIES = {
    "segments": [
        {
            "name": "all",
            "decoding": {"strategy": "greedy"},
            "explore": {"share": 0.3, "decoding": {"strategy": "temperature", "temperature": 1.5}},
        }
    ],
    "default": "all",
}


@asynchronous
async def test_a_share_of_a_segment_explores_the_same_requests_each_time(shared_valkey: Valkey) -> None:
    async with recorded(shared_valkey) as what:
        put = await what.service.client.put("/ops/policies", json={**POLICIES, "reason": "explore"})
        assert put.status_code == 200, put.text

        async def strategies(requests: int = 4, **more: Any) -> list[str]:
            headers = [{"X-Request-Id": f"request-{n}"} for n in range(requests)]
            post = what.service.client.post
            return [
                (await post("/recommend", json={"user_id": "u", "k": 2, **more}, headers=header)).json()["strategy"]
                for header in headers
            ]

        first = await strategies(24, seed="fresh")
        assert 0 < first.count("temperature") < 20
        assert await strategies(24, seed="fresh") == first
        assert len(set(await strategies())) == 1
        assert len(set(await strategies(seed=5))) == 1
        assert set(await strategies(decoding={"strategy": "beam"})) == {"beam"}
        entries = await what.entries("exposures")
        assert all(e["explored"] == (e["strategy"] == "temperature") for e in entries)
        # The seed decided whether they explore, so both kinds have it; the request that named a decoding drew nothing.
        assert all((e["seed"] is None) == (e["strategy"] == "beam") for e in entries)
        assert len({e["seed"] for e in entries if e["strategy"] == "greedy"}) > 1
        versions = {entry["policies_version"] for entry in entries}
        assert len(versions) == 1


@asynchronous
async def test_without_its_record_nothing_is_merged(shared_valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(*_: object) -> list[StoreUnavailable]:
        return [StoreUnavailable("no room")]

    event = {"session_id": "s", "item_id": "1", "type": "view", "timestamp": T}
    merge = {"session_id": "s", "user_id": "u"}
    async with recorded(shared_valkey) as what:
        client = what.service.client
        assert (await client.post("/events", json={"events": [event]})).status_code == 200
        await what.service.settled()
        with monkeypatch.context() as patched:
            patched.setattr(LogStreams, "append", refused)
            assert (await client.post("/sessions/merge", json=merge)).status_code == 503
        assert (await client.post("/sessions/merge", json=merge)).json()["merged"] == 1
        assert len([entry for entry in await what.entries("events") if "merged" in entry]) == 1


@asynchronous
async def test_a_drawn_list_under_rules_is_recorded_with_the_law_of_what_they_leave_or_as_not_drawn(
    shared_valkey: Valkey, random_artifact: Path
) -> None:
    engine = Engine(Artifact.open(random_artifact), device="cpu")
    ids = engine.artifact.catalogue.item_ids
    hashes = id_hashes(engine.artifact.catalogue.columns.ids)
    drawn = {"strategy": "temperature", "temperature": 1.0}
    apart = {"name": "apart", "kind": "apart", "items": [ids[i] for i in range(8)]}
    pinned = {"name": "pinned", "kind": "pin", "item": ids[0], "position": 2}
    ask: dict[str, Any] = {"user_id": "u", "k": 5, "decoding": drawn, "seed": 3}
    try:
        async with recorded(shared_valkey, cast("Any", engine)) as what:
            shrunk = await what.service.recommend(**ask, rules=[apart])
            fixed = await what.service.recommend(**ask, rules=[pinned])
            entries = {entry["list_id"]: entry for entry in await what.entries("exposures")}
    finally:
        engine.close()
    first, second = entries[shrunk["list_id"]], entries[fixed["list_id"]]
    items, scores = unpacked(first["c"])
    listed = [item["item_id"] for item in shrunk["items"]]
    places, law = draw(hashes.take(items), scores, Decoding("temperature"), 3, 5)
    assert [ids[int(items[place])] for place in places] == listed
    assert first["log_propensities"] == pytest.approx(law.tolist(), abs=1e-4)
    assert first["drawn"] == 5
    assert len(set(listed).intersection(apart["items"])) <= 1
    assert fixed["items"][1]["item_id"] == ids[0]
    assert (second["drawn"], second["log_propensities"]) == (0, [0.0] * 5)
