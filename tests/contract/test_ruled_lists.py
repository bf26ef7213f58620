"""Rules of a list over HTTP: in policies and in requests, on every rung, and what answers, metrics and records say."""

from __future__ import annotations

from typing import Any

import pytest

from service.metrics.service_metrics import value_of
from service.schemas.list_answers import RecommendAnswer
from tests.support.aio import asynchronous
from tests.support.fakes import CATEGORIES
from tests.support.serving import Service, serving

ONE_OF_EACH = {"name": "variety", "kind": "at_most", "each": "category", "n": 1}
PIN = {"name": "campaign", "kind": "pin", "item": "5", "position": 2}
ALL_RUNGS = ("full", "narrow", "item_cf", "popular")


def _ids(answer: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


def _categories(answer: dict[str, Any]) -> list[str]:
    return [CATEGORIES[int(item) % len(CATEGORIES)] for item in _ids(answer)]


async def _policies(service: Service, **more: Any) -> None:
    segments = [{"name": "all", "decoding": {"strategy": "greedy"}}]
    answer = await service.client.put("/ops/policies", json={"segments": segments, "default": "all", **more})
    assert answer.status_code == 200, answer.text


@asynchronous
async def test_a_list_without_rules_says_nothing_of_them_and_asks_the_engine_for_no_more() -> None:
    async with serving() as service:
        answer = await service.recommend(events=[{"item_id": "3"}], k=4)
        request = service.engine.jobs[-1].request
    assert "rules" not in answer
    assert (request.k, request.pool, request.width) == (4, 0, None)


@asynchronous
async def test_rules_of_a_request_choose_the_list_and_answer_metric_and_schema_say_so() -> None:
    body = {"events": [{"item_id": "3"}], "k": 4, "rules": [ONE_OF_EACH, PIN]}
    async with serving(operator=True) as service:
        answer = await service.recommend(**body)
        metrics = service.runtime.metrics
        assert value_of(metrics.rules, "request", "bit") == 2
        assert value_of(metrics.rule_cost, "request", "gpt4rec") > 0
    RecommendAnswer.model_validate(answer)
    assert _ids(answer)[1] == "5"
    assert sorted(_categories(answer)) == sorted(CATEGORIES)
    assert answer["rules"] == [{"name": "campaign", "result": "bit"}, {"name": "variety", "result": "bit"}]
    assert answer["warnings"] == []


@asynchronous
async def test_what_cannot_be_kept_is_reported_and_the_list_is_whole() -> None:
    rules = [ONE_OF_EACH, {**PIN, "item": "nothing"}]
    async with serving() as service:
        answer = await service.recommend(events=[{"item_id": "3"}], k=8, rules=rules)
    assert len(set(_ids(answer))) == 8
    assert set(_categories(answer)[:4]) == set(CATEGORIES)
    assert {one["name"]: one["result"] for one in answer["rules"]} == {"campaign": "not_kept", "variety": "not_kept"}
    assert answer["warnings"] == ["the list does not keep these rules: campaign, variety"]


@asynchronous
async def test_no_rule_lists_what_a_filter_or_an_exclusion_forbids() -> None:
    rules = [PIN, {"name": "drama", "kind": "at_least", "where": {"category": ["Drama"]}, "n": 2}]
    async with serving() as service:
        filtered = {"filter": {"category": ["War"]}}
        answer = await service.recommend(events=[{"item_id": "3"}], k=4, rules=rules, **filtered)
        without = await service.recommend(events=[{"item_id": "3"}], k=4, rules=[PIN], exclude=["5"])
    assert set(_categories(answer)) == {"War"}
    assert [one["result"] for one in answer["rules"]] == ["not_kept", "not_kept"]
    assert "5" not in _ids(without)


@pytest.mark.parametrize("rung", ALL_RUNGS)
@asynchronous
async def test_rules_hold_on_every_rung(rung: str) -> None:
    body: dict[str, Any] = {"events": [{"item_id": "3"}], "k": 4, "rules": [ONE_OF_EACH, PIN]}
    async with serving(operator=True) as service:
        if rung == "narrow":
            body["user_id"] = "somebody"  # Redis is away
        elif rung == "item_cf":
            await service.client.put("/ops/fallback", json={"mode": "fallback", "reason": "test"})
        elif rung == "popular":
            body |= {"user_id": "somebody", "events": []}
        answer = await service.recommend(**body)
    assert answer["rung"] == rung
    assert _ids(answer)[1] == "5"
    assert sorted(_categories(answer)) == sorted(CATEGORIES)


@asynchronous
async def test_rules_of_policies_hold_until_a_request_replaces_or_refuses_them() -> None:
    ask = {"events": [{"item_id": "3"}], "k": 4}
    async with serving(operator=True) as service:
        await _policies(service, rules=[PIN])
        kept = await service.recommend(**ask)
        assert value_of(service.runtime.metrics.rules, "campaign", "bit") == 1
        replaced = await service.recommend(**ask, rules=[{**PIN, "item": "6"}])
        refused = await service.recommend(**ask, policy_rules=False)
        in_force = (await service.client.get("/ops/policies")).json()
    assert _ids(kept)[1] == "5"
    assert _ids(replaced)[1] == "6"
    assert "rules" not in refused
    assert in_force["rules"][0]["name"] == "campaign"


@asynchronous
async def test_a_rule_outside_its_validity_does_not_hold() -> None:
    over, to_come = {"valid_until": "2020-01-01T00:00:00Z"}, {"valid_from": "2999-01-01T00:00:00+01:00"}
    async with serving() as service:
        for validity in (over, to_come):
            answer = await service.recommend(events=[{"item_id": "3"}], rules=[{**PIN, **validity}])
            assert "rules" not in answer
        answer = await service.recommend(
            events=[{"item_id": "3"}], rules=[{**PIN, "valid_from": "2020-01-01T00:00:00Z"}]
        )
    assert _ids(answer)[1] == "5"


@pytest.mark.parametrize(
    "rule",
    [
        {**PIN, "position": 0},
        {**PIN, "name": "No spaces"},
        {"name": "a", "kind": "at_most", "n": 1},
        {"name": "a", "kind": "at_most", "n": 0, "each": "brand"},
        {"name": "a", "kind": "at_least", "n": 3, "new": True, "first": 2},
        {"name": "a", "kind": "apart", "items": ["1"]},
        {"name": "a", "kind": "unheard-of"},
        {"name": "a", "kind": "boost", "where": {"colour": ["red"]}, "times": 2},
        {"name": "a", "kind": "apart", "groups": [{"brand": ["x"]}, {"price": ["1"]}]},
        {**PIN, "valid_from": "2020-01-01T00:00:00"},
        {**PIN, "valid_from": "2021-01-01T00:00:00Z", "valid_until": "2020-01-01T00:00:00Z"},
    ],
)
@asynchronous
async def test_a_rule_that_says_nothing_sensible_is_422(rule: dict[str, Any]) -> None:
    async with serving() as service:
        body = {"events": [{"item_id": "3"}], "rules": [rule]}
        answer = await service.client.post("/recommend", json=body)
        twice = await service.client.post("/recommend", json={**body, "rules": [PIN, PIN]})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["loc"][:2] == ["rules", 0]
    assert "two rules are named campaign" in twice.text


@pytest.mark.parametrize("method", ["mmr", "dpp"])
@asynchronous
async def test_a_diverse_list_holds_other_categories_than_the_plain_one_starts_with(method: str) -> None:
    ask = {"events": [{"item_id": "3"}], "k": 8, "segment": "active", "filter": {"category": ["Drama", "War"]}}
    async with serving() as service:
        plain = await service.recommend(**ask, diversity={"method": method, "weight": 0})
        diverse = await service.recommend(**ask, diversity={"method": method, "weight": 0.9})
    assert "rules" not in diverse
    assert len(set(_ids(diverse))) == 8
    assert _categories(plain)[:2] == _categories(diverse)[:2]  # the fake engine lists them by turns
    assert _categories(diverse).count("War") == 4
