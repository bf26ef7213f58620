"""The routes behind the playground, around a fake engine: what they answer, to whom, and that nothing is kept."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from service.artifact.array_types import IntArray
from service.artifact.features import EventArrays
from service.common.errors import ModelError
from service.engine.interface import Explanation, MemoryRead
from service.playground import explorer
from service.schemas.playground_answers import FoundAnswer, PlaygroundAnswer, WhyAnswer
from service.schemas.playground_answers import ListsAnswer as PlaygroundLists
from tests.support.aio import asynchronous, eventually
from tests.support.fakes import FakeEngine
from tests.support.serving import Service, serving

T = 1_700_000_000_000
KEY = "k" * 40


class Explainer(FakeEngine):
    """Every event carries as much as its place from the oldest; what is left is the start's."""

    def __init__(self) -> None:
        super().__init__()
        self.explains = True
        self.asked: list[tuple[EventArrays, bool]] = []
        self.free = threading.Event()
        self.free.set()
        self.broken = False

    def explain(self, events: EventArrays, *, from_start: bool, context: IntArray | None = None) -> Explanation:
        assert context is None, "its encoder reads no features"
        self.asked.append((events, from_start))
        self.free.wait()
        if self.broken:
            raise ModelError("a path of this machine")
        weight = np.arange(1, len(events) + 1, dtype=np.float32)
        weight /= weight.sum() * 2
        return Explanation(weight, 0.5, np.zeros(4, np.float32))


def event(item: str, seconds: int | None = None) -> dict[str, Any]:
    return {"item_id": item} | ({} if seconds is None else {"timestamp": T + seconds * 1000})


async def why(service: Service, *events: dict[str, Any], status: int = 200) -> dict[str, Any]:
    answer = await service.client.post("/playground/why", json={"events": list(events)})
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


PATHS = ("/playground", "/playground/about", "/playground/items", "/playground/sample")


@asynchronous
async def test_without_the_setting_there_is_no_playground() -> None:
    async with serving() as service:
        for path in PATHS:
            assert (await service.client.get(path)).status_code == 404
        await why(service, event("1"), status=404)
        assert "/playground" not in (await service.client.get("/openapi.json")).text


@asynchronous
async def test_the_page_is_open_and_its_policy_lets_nothing_in() -> None:
    async with serving(playground=True, api_keys=f"web:{KEY}") as service:
        answer = await service.client.get("/playground")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/html")
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        for name in ("playground.js", "playground.css", "playground-list.js"):
            assert (await service.client.get(f"/assets/{name}")).status_code == 200


@asynchronous
async def test_where_keys_are_on_its_data_need_one() -> None:
    async with serving(Explainer(), playground=True, api_keys=f"web:{KEY}") as service:
        for path in PATHS[1:]:
            assert (await service.client.get(path)).status_code == 401
            assert (await service.client.get(path, headers={"X-API-Key": "wrong"})).status_code == 401
            assert (await service.client.get(path, headers={"X-API-Key": KEY})).status_code == 200
        await why(service, event("1"), status=401)


@asynchronous
async def test_about_says_what_there_is_to_choose_from() -> None:
    async with serving(Explainer(), playground=True) as service:
        answer = (await service.client.get("/playground/about")).json()
    about = PlaygroundAnswer.model_validate(answer)
    assert about.items == 40
    assert about.explains
    assert not about.repeats
    assert {one.name: one.items for one in about.categories} == {"Comedy": 10, "Drama": 10, "Sci-Fi": 10, "War": 10}
    assert {one.name: one.strategy for one in about.segments}["conservative"] == "beam"
    assert about.event_types == ["view"]
    assert about.trained_on is None
    assert about.links == {"API": "/docs"}
    assert (about.budget_ms, about.budget_max_ms) == (2000.0, 60_000.0)


@asynchronous
async def test_items_are_found_by_title_and_by_id() -> None:
    async def ids(query: str) -> list[str]:
        answer = await service.client.get(f"/playground/items?{query}")
        assert answer.status_code == 200, answer.text
        return [item.item_id for item in FoundAnswer.model_validate(answer.json()).items]

    async with serving(playground=True) as service:
        assert await ids("q=title 3&limit=4") == ["3", "30", "31", "32"]
        assert await ids("q=17&limit=1") == ["17"]
        assert await ids("limit=3") == ["0", "1", "2"]
        assert await ids("item_id=5&item_id=nowhere&item_id=2") == ["5", "2"]
        item = (await service.client.get("/playground/items?item_id=5")).json()["items"][0]
        assert item == {"item_id": "5", "title": "Title 5", "category": ["Drama"]}


@pytest.mark.parametrize("query", ["limit=0", "limit=51", "q=" + "x" * 129, "item_id=%00", "item_id=" + "x" * 129])
@asynchronous
async def test_a_question_that_does_not_fit_is_refused(query: str) -> None:
    async with serving(playground=True) as service:
        assert (await service.client.get(f"/playground/items?{query}")).status_code == 422


@asynchronous
async def test_a_sample_is_the_same_for_the_same_seed_and_in_stock() -> None:
    async with serving(FakeEngine(frozenset({1, 3, 7})), playground=True) as service:
        seen = set()
        for seed in range(30):
            first = (await service.client.get(f"/playground/sample?seed={seed}")).json()["items"]
            again = (await service.client.get(f"/playground/sample?seed={seed}")).json()["items"]
            ids = [item["item_id"] for item in first]
            assert first == again
            assert len(set(ids)) == len(ids) >= 4
            assert not {"1", "3", "7"} & set(ids)
            seen.add(tuple(ids))
        assert len(seen) > 20


@asynchronous
async def test_every_event_has_its_share_in_the_order_given() -> None:
    async with serving(engine := Explainer(), playground=True) as service:
        asked = {"events": [event("7", 20), event("5", 0), event("6", 10)], "features": {"age": "old"}}
        answer = (await service.client.post("/playground/why", json=asked)).json()
        found = WhyAnswer.model_validate(answer)
        events, from_start = engine.asked[0]
        assert events.item.tolist() == [5, 6, 7]
        assert from_start
        assert found.weights == pytest.approx([1 / 4, 1 / 12, 1 / 6], abs=1e-6)
        assert found.start + sum(found.weights) == pytest.approx(1.0, abs=1e-5)


@asynchronous
async def test_of_a_history_beyond_the_receptive_field_only_the_newest_carry_anything() -> None:
    async with serving(engine := Explainer(), playground=True) as service:
        answer = await why(service, *(event(str(n), n) for n in range(20)))
        assert answer["weights"][:8] == [0.0] * 8
        assert all(share > 0 for share in answer["weights"][8:])
        assert not engine.asked[0][1]


@asynchronous
async def test_an_event_that_is_given_twice_has_one_share() -> None:
    async with serving(Explainer(), playground=True) as service:
        weights = (await why(service, event("5", 0), event("5", 0), event("6", 1)))["weights"]
        assert weights[1] == 0.0
        assert sum(weights) == pytest.approx(0.5, abs=1e-5)


class Remembering(Explainer):
    """What it read from memory is known of the two newest events."""

    def explain(self, events: EventArrays, *, from_start: bool, context: IntArray | None = None) -> Explanation:
        found = super().explain(events, from_start=from_start, context=context)
        slots = np.array([0.75, 0.25], np.float32)
        memory = MemoryRead(np.array([0.25, 0.5], np.float32), slots, np.array([4, 5]), {"hours": 1.0})
        return replace(found, method="gradient", earlier=0.125, memory=memory)


@asynchronous
async def test_what_was_read_from_memory_is_told_by_event_in_the_order_given() -> None:
    async with serving(Remembering(), playground=True) as service:
        answer = await why(service, event("7", 20), event("5", 0), event("7", 20), event("6", 10))
        found = WhyAnswer.model_validate(answer)
        assert found.memory is not None and (found.earlier, found.method) == (0.125, "gradient")
        assert found.memory.events == [0.5, 0.0, 0.0, 0.25]
        assert found.memory.sessions == [5, None, None, 4]
        assert (found.memory.slots, found.memory.horizons) == ([0.75, 0.25], {"hours": 1.0})
    async with serving(Explainer(), playground=True) as service:
        plain = await why(service, event("1"))
        assert (plain["memory"], plain["earlier"]) == (None, 0.0)


@asynchronous
async def test_an_unknown_item_keeps_its_place() -> None:
    async with serving(engine := Explainer(), playground=True) as service:
        assert len((await why(service, event("nowhere", 0), event("6", 1)))["weights"]) == 2
        assert engine.asked[0][0].item.tolist() == [40, 6]


@asynchronous
async def test_an_engine_that_cannot_say_why_says_so() -> None:
    async with serving(playground=True) as service:
        assert not (await service.client.get("/playground/about")).json()["explains"]
        assert "no explainer" in (await why(service, event("1"), status=404))["detail"]
    async with serving(engine := Explainer(), playground=True) as service:
        engine.explains = False
        await why(service, event("1"), status=404)


@asynchronous
async def test_a_broken_explainer_is_a_problem_without_internals() -> None:
    async with serving(engine := Explainer(), playground=True) as service:
        engine.broken = True
        assert "path" not in str(await why(service, event("1"), status=503))
        engine.broken = False
        await why(service, event("1"))


@pytest.mark.parametrize(
    "body", [{}, {"events": []}, {"events": [{"item_id": "1"}] * 201}, {"events": [{"item_id": "1", "x": 1}]}], ids=str
)
@asynchronous
async def test_a_body_that_does_not_fit_is_refused(body: dict[str, Any]) -> None:
    async with serving(Explainer(), playground=True) as service:
        assert (await service.client.post("/playground/why", json=body)).status_code == 422


@asynchronous
async def test_questions_that_wait_are_bounded_and_recommend_does_not_wait_for_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(explorer, "_WAITING_MAX", 2)
    async with serving(engine := Explainer(), playground=True) as service:
        engine.free.clear()
        waiting = [asyncio.create_task(why(service, event("1"))) for _ in range(2)]
        try:

            async def full() -> bool:
                assert service.runtime.space.explorer is not None
                return service.runtime.space.explorer.waiting == 2

            await eventually(full, within_s=10.0)
            await why(service, event("1"), status=503)
            assert (await service.recommend(events=[event("1")]))["source"] == "gpt4rec"
        finally:
            engine.free.set()
        assert len(await asyncio.gather(*waiting)) == 2


async def lists(service: Service, body: dict[str, Any], status: int = 200) -> dict[str, Any]:
    answer = await service.client.post("/playground/lists", json=body)
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


@asynchronous
async def test_one_request_brings_the_list_of_recommend_what_it_shows_and_one_to_compare_it_with() -> None:
    async with serving(Explainer(), deadline_ms=30_000.0, playground=True) as service:
        history = [event("1", 0), event("2", 60)]
        asked = {"events": history, "k": 3, "decoding": {"strategy": "beam"}}
        alone = (await service.client.post("/recommend", json=asked)).json()
        found = await lists(service, {"request": asked, "beside": {"rung": "popular"}})
        listing, rival = (PlaygroundLists.model_validate(found)).lists
        assert [item.item_id for item in listing.items] == [item["item_id"] for item in alone["items"]]
        assert (rival.rung, rival.source, rival.reason, rival.strategy) == ("popular", "popular", "forced", None)
        assert {item["item_id"] for item in found["items"]} >= {"1", "2", *(item.item_id for item in listing.items)}
        assert found["why"]["weights"] == (await why(service, *history))["weights"]
        below = (await lists(service, {"request": asked, "beside": {"rung": "item_cf"}}))["lists"][1]
        assert below["source"] != "gpt4rec"
        assert len((await lists(service, {"request": asked}))["lists"]) == 1


@asynchronous
async def test_two_lists_for_nobody_are_drawn_with_one_noise() -> None:
    async with serving(engine := Explainer(), deadline_ms=30_000.0, playground=True) as service:
        asked = {"events": [event("1", 0)], "k": 3, "decoding": {"strategy": "temperature"}}
        for _ in range(2):
            await lists(service, {"request": asked, "beside": {"policy_rules": False}})
    one, beside, later, last = (job.request.seed for job in engine.jobs)
    assert one == beside != later == last


@asynchronous
async def test_a_list_that_the_model_did_not_make_comes_without_its_attention() -> None:
    async with serving(Explainer(), deadline_ms=30_000.0, playground=True) as service:
        asked = {"events": [event("1", 0)], "k": 3}
        assert (await lists(service, {"request": {**asked, "budget_ms": 0.001}}))["why"] is None
        assert (await lists(service, {"request": {"user_id": "u1", "k": 3}}))["why"] is None
        await lists(service, {"request": asked, "beside": {"segment": "nobody"}}, status=422)
        await lists(service, {"request": asked, "beside": {"rung": "full"}}, status=422)


@asynchronous
async def test_a_title_is_found_in_spite_of_a_typo() -> None:
    async with serving(playground=True) as service:
        known = (await service.client.get("/playground/items?limit=1")).json()["items"][0]
        word = max(known["title"].split(), key=len)
        typed = f"{word[:-2]}{word[-1]}{word[-2]}" if len(word) > 3 else word
        found = (await service.client.get("/playground/items", params={"q": typed, "limit": 50})).json()["items"]
        assert known["item_id"] in [item["item_id"] for item in found]
