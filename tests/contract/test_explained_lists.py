"""`explain` on /recommend: what each signal contributed, and the event that carried most of each item."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from service.artifact.array_types import IntArray
from service.artifact.features import EventArrays
from service.artifact.scorers.own_items import OwnItems
from service.artifact.scorers.ranker_weights import RankerWeights
from service.artifact.scorers.signal_files import ITEM_CF, POPULARITY
from service.common.deadline import Clock
from service.common.errors import ModelError
from service.common.request_context import RequestContext
from service.engine.decoding import signals_max
from service.engine.engine import Engine
from service.engine.factory import open_engine
from service.engine.interface import Explanation
from service.engine.jobs import DecodedList, DecodeJob
from service.recommend.reasons import TOO_LATE
from service.schemas.list_answers import RecommendAnswer
from service.schemas.recommend_request import RecommendRequest
from service.signals.ranker import Ranker
from service.signals.user_history import UserHistory
from tests.support.aio import asynchronous
from tests.support.artifacts import random_parts, write_artifact
from tests.support.clock import FakeClock
from tests.support.fakes import N_ITEMS, FakeEngine
from tests.support.networks import random_network
from tests.support.serving import Service, serving
from tests.support.valkey import Valkey

START_S = 1_700_000_000
LEFT_S = 0.2  # what a list whose reasons hang leaves for them
WEIGHTS = {"path": 0.5, "dense": 0.5, "item_cf": 3.0, "repeat": 2.0}
BEAM = {"strategy": "beam"}  # no list is drawn by chance
BELOW = {"item_cf": 1.0, "repeat": 0.5}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A random network whose lists item-CF and own items rank as well."""
    parts = random_parts()
    n = len(parts.catalogue)
    weights = RankerWeights((ITEM_CF, POPULARITY, "repeat"), {"default": WEIGHTS}, BELOW)
    parts = replace(parts, signals={"repeat": OwnItems(n, 0.9)}, ranker=weights)
    engine = open_engine(write_artifact(tmp_path_factory.mktemp("explain"), parts), device="cpu")
    yield cast("Engine", engine)
    engine.close()


def events(*items: str) -> list[dict[str, Any]]:
    return [{"item_id": item, "type": "view", "timestamp": START_S + n} for n, item in enumerate(items)]


async def force(service: Service, mode: str) -> None:
    forced = await service.client.put("/ops/fallback", json={"mode": mode, "reason": "test"})
    assert forced.status_code == 200


def checked(answer: dict[str, Any], history: list[dict[str, Any]], signals: set[str]) -> list[dict[str, Any]]:
    """The reasons of an answer: their sums differ as the scores do, and their events are those of the history."""
    RecommendAnswer.model_validate(answer)
    items = answer["items"]
    known = {(event["item_id"], 1000 * event["timestamp"]) for event in history}
    for item in items:
        why = item["because"]
        assert set(why["contributions"]) == signals
        event = why["event"]
        if event is None:
            continue
        assert (event["item_id"], event["timestamp_ms"]) in known
        assert 0 < event["share"] <= 1
        assert event["exact"] == (event["by"] != "attention")
        assert event["by"] in signals | {"attention"}
    above = [sum(item["because"]["contributions"].values()) for item in items]
    for item, sum_ in zip(items, above, strict=True):
        assert item["score"] - items[0]["score"] == pytest.approx(sum_ - above[0], abs=1e-3)
    return [item["because"] for item in items]


@asynchronous
async def test_reasons_of_the_model_add_up_and_name_events_of_the_history(engine: Engine) -> None:
    ids = engine.artifact.catalogue.item_ids
    history = events(ids[3], ids[5], ids[3], ids[8])
    async with serving(cast("FakeEngine", engine), deadline_ms=30_000.0) as service:
        body = {"events": history, "k": 8, "exclude_seen": False, "decoding": BEAM}
        answer = await service.recommend(**body, explain=True)
        plain = await service.recommend(**body)
    assert answer["rung"] == "full" and answer["scorers"] == [*WEIGHTS]
    checked(answer, history, set(WEIGHTS))
    assert [item["item_id"] for item in plain["items"]] == [item["item_id"] for item in answer["items"]]
    assert not any("because" in item for item in plain["items"])


@asynchronous
async def test_reasons_add_up_where_more_signals_speak_than_count(tmp_path: Path) -> None:
    model = random_network(n_items=400, sizes=(8, 8, 9), window=50)
    weights = RankerWeights((ITEM_CF, POPULARITY), {"default": {"path": 0.5, "dense": 0.5, ITEM_CF: 3.0}})
    parts = replace(random_parts(model), signals={}, ranker=weights, dense=False)
    engine = cast("Engine", open_engine(write_artifact(tmp_path, parts), device="cpu"))
    history = events(*engine.artifact.catalogue.item_ids[::10])
    async with serving(cast("FakeEngine", engine), deadline_ms=30_000.0) as service:
        body = {"events": history, "k": 60, "exclude_seen": False, "decoding": BEAM}
        answer = await service.recommend(**body, explain=True)
    engine.close()
    values = Ranker.of(parts.all_signals, weights).user(UserHistory.of_items(np.arange(0, 400, 10)))
    assert len(values) > signals_max(dense=False)
    listed = values.of(np.array([int(item["item_id"][1:]) for item in answer["items"]]))
    because = checked(answer, history, {"path", "dense", ITEM_CF})
    least = min(why["contributions"][ITEM_CF] for why in because)
    left_out = [
        why for value, why in zip(listed, because, strict=True) if value > 0 and why["contributions"][ITEM_CF] == least
    ]
    assert left_out and all(why["event"] is None or why["event"]["by"] == "attention" for why in left_out)


@asynchronous
async def test_an_empty_list_has_nothing_to_explain(engine: Engine) -> None:
    known = list(engine.artifact.catalogue.item_ids)
    history = events(known[3])
    async with serving(cast("FakeEngine", engine), deadline_ms=30_000.0, operator=True) as service:
        for mode in ("auto", "fallback"):
            await force(service, mode)
            for none in ({"filter": {"category": ["no such"]}}, {"exclude": known}):
                answer = await service.recommend(events=history, k=3, explain=True, **none)
                assert answer["items"] == []
                assert not any("explain" in warning for warning in answer["warnings"])


@asynchronous
async def test_items_that_the_network_speaks_for_name_the_event_it_read_most(engine: Engine) -> None:
    ids = engine.artifact.catalogue.item_ids
    history = events(ids[3], "unknown", ids[5], ids[8])
    async with serving(cast("FakeEngine", engine), deadline_ms=30_000.0, playground=True) as service:
        answer = await service.recommend(events=history, k=20, decoding=BEAM, explain=True)
        told = await service.client.post("/playground/why", json={"events": history})
    weights = told.json()["weights"]
    read = history[weights.index(max(weights))]
    by_network = []
    for why in checked(answer, history, set(WEIGHTS)):
        event, parts = why["event"], why["contributions"]
        network = parts["path"] + parts["dense"]
        beside = sum(value for name, value in parts.items() if name not in ("path", "dense"))
        by_network.append(network > max(beside, 0))
        if not by_network[-1]:  # attention does not speak for what the network speaks against
            assert event is None or event["exact"]
            continue
        assert (event["item_id"], event["by"], event["exact"]) == (read["item_id"], "attention", False)
        assert event["share"] == pytest.approx(max(weights), abs=1e-5)
    assert set(by_network) == {True, False}


@asynchronous
async def test_the_rung_below_explains_its_lists_from_its_own_candidates(engine: Engine) -> None:
    ids = engine.artifact.catalogue.item_ids
    history = events(ids[3], ids[5], ids[3])
    async with serving(cast("FakeEngine", engine), deadline_ms=30_000.0, operator=True) as service:
        await force(service, "fallback")
        answer = await service.recommend(events=history, k=4, exclude_seen=False, explain=True)
    assert (answer["rung"], answer["source"], answer["scorers"]) == ("item_cf", "item_cf", [*BELOW])
    for one in checked(answer, history, set(BELOW)):
        assert one["event"]["exact"]


@asynchronous
async def test_an_item_seen_before_the_kept_history_is_named_by_its_last_event(shared_valkey: Valkey) -> None:
    fake = FakeEngine()
    fake.artifact = replace(fake.artifact, weights={"repeat": 5.0})
    async with serving(fake, redis_url=shared_valkey.url, prefix="explain-before:") as service:
        await service.post_events("u", "39", "39", *(str(n) for n in range(12)), start_ms=START_S * 1000)
        answer = await service.recommend(user_id="u", k=1, exclude_seen=False, explain=True)
    event = answer["items"][0]["because"]["event"]
    assert (answer["items"][0]["item_id"], event["item_id"], event["title"]) == ("39", "39", "Title 39")
    assert (event["timestamp_ms"], event["by"], event["exact"]) == ((START_S + 1) * 1000, "repeat", True)


class Watched(FakeEngine):
    """Counts how often it is asked what it attended to."""

    explains = True

    def __init__(self) -> None:
        super().__init__()
        self.explained = 0

    def explain(self, events: EventArrays, *, from_start: bool, context: IntArray | None = None) -> Explanation:
        self.explained += 1
        raise ModelError(f"{len(events)} events, {from_start}, {context}: not now")


@asynchronous
async def test_nothing_is_computed_for_a_request_that_does_not_ask() -> None:
    engine = Watched()
    async with serving(engine) as service:
        body = {"events": events("3", "4"), "k": 3, "seed": 7}
        without = await service.recommend(**body)
        assert engine.explained == 0
        with_reasons = await service.recommend(**body, explain=True)
        assert engine.explained == 1
    plain, explained = (job.request for job in engine.jobs)
    assert (plain.candidates, explained.candidates) == (False, True)
    # All else that the engine gets is the same, and nothing was done beside it.
    assert [getattr(plain, name) for name in ("gap_ms", "decoding", "k", "filter_id", "seed", "width")] == [
        getattr(explained, name) for name in ("gap_ms", "decoding", "k", "filter_id", "seed", "width")
    ]
    assert [item["item_id"] for item in without["items"]] == [item["item_id"] for item in with_reasons["items"]]


@asynchronous
async def test_popular_items_and_those_that_fill_a_list_up_say_so() -> None:
    async with serving(operator=True) as service:
        await force(service, "fallback")
        popular = await service.recommend(session_id="nobody", k=3, explain=True)
        filled = await service.recommend(events=events("3"), k=5, explain=True)
    for item in popular["items"]:
        contributions = item["because"]["contributions"]
        assert contributions == {"popularity": pytest.approx(item["score"] - 1 / N_ITEMS, abs=1e-5)}
        assert item["because"]["event"] is None
    assert [item["item_id"] for item in filled["items"][:2]] == ["4", "5"]
    for item in filled["items"][:2]:
        assert item["because"]["event"]["item_id"] == "3" and item["because"]["event"]["by"] == "item_cf"
    assert [item["because"] for item in filled["items"][2:]] == [{"contributions": {}, "event": None}] * 3


async def _asked(service: Service, body: dict[str, Any], clock: Clock, spent_s: float = 0.0) -> dict[str, Any]:
    now = clock()
    context = RequestContext("id", now - spent_s, now, clock)
    request = RecommendRequest.model_validate(body)
    async with asyncio.timeout(60):
        return await service.runtime.space.recommender.recommend(request, context)


@asynchronous
async def test_without_time_the_list_comes_without_reasons_and_says_so(engine: Engine) -> None:
    body = {"events": events(engine.artifact.catalogue.item_ids[3]), "k": 3, "explain": True}
    async with serving(cast("FakeEngine", engine)) as service:
        answer = await _asked(service, body, time.monotonic, spent_s=100.0)
    assert len(answer["items"]) == 3 and answer["warnings"] == [TOO_LATE]
    assert not any("because" in item for item in answer["items"])


@asynchronous
async def test_an_explainer_that_hangs_holds_no_answer_up(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    # Time passes only while a list is made, so no list is late on a busy machine. Jobs carry the time to other clocks.
    asked, go, clock = threading.Event(), threading.Event(), FakeClock(time.monotonic())
    explain, decode = engine.explain, engine.decode

    def spends_the_time(jobs: Sequence[DecodeJob]) -> list[DecodedList | Exception]:
        found = decode(jobs)
        clock.advance(60.0 - LEFT_S)
        return found

    def hangs(held: EventArrays, *, from_start: bool, context: IntArray | None) -> Explanation:
        asked.set()
        go.wait(60)
        return explain(held, from_start=from_start, context=context)

    asked_for = {"k": 20, "budget_ms": 60_000, "decoding": BEAM, "explain": True}
    body = {"events": events(engine.artifact.catalogue.item_ids[3]), **asked_for}
    monkeypatch.setattr(engine, "decode", spends_the_time)
    monkeypatch.setattr(engine, "explain", hangs)
    async with serving(cast("FakeEngine", engine)) as service:
        try:
            answers = [await _asked(service, body, clock) for _ in range(3)]
            assert asked.wait(60)
            assert not go.is_set()
        finally:
            go.set()
    for answer in answers:
        assert (answer["rung"], answer["reason"]) == ("full", None)
        assert len(answer["items"]) == 20 and answer["warnings"] == [TOO_LATE]
        assert not any("because" in item for item in answer["items"])
