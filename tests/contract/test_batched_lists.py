"""`POST /recommend/batch`: each entry is answered as by itself, a faulty one harms no other, and one deadline holds."""

from __future__ import annotations

from typing import Any

import pytest

from service.metrics.service_metrics import value_of
from service.schemas.list_answers import BatchAnswer
from tests.support.aio import asynchronous
from tests.support.processes import ids
from tests.support.serving import Service, serving
from tests.support.valkey import Valkey

BEAM = {"strategy": "beam"}


async def batch(service: Service, *entries: Any, headers: dict[str, str] | None = None, **more: Any) -> Any:
    answer = await service.client.post(
        "/recommend/batch", json={"requests": list(entries), **more}, headers=headers or {}
    )
    assert answer.status_code == 200, answer.text
    BatchAnswer.model_validate(answer.json())
    return answer.json()


@asynchronous
async def test_each_entry_is_answered_as_recommend_answers_it(shared_valkey: Valkey) -> None:
    bodies: list[dict[str, Any]] = [
        {"user_id": "a", "k": 3, "decoding": BEAM},
        {"user_id": "b", "k": 7, "decoding": BEAM, "filter": {"category": ["War"]}},
        {"events": [{"item_id": "3"}], "candidates": ["5", "9", "1"]},
        {"session_id": "s", "decoding": BEAM, "exclude": ["39"]},
    ]
    async with serving(redis_url=shared_valkey.url, prefix="batch:") as service:
        await service.post_events("a", "39", "38")
        alone = [await service.recommend(**body) for body in bodies]
        found = (await batch(service, *bodies, headers={"X-Request-Id": "r1"}))["answers"]
    assert [one["status"] for one in found] == [200] * 4
    own = ("request_id", "list_id", "latency_ms")
    for number, (one, expected) in enumerate(zip(found, alone, strict=True)):
        assert one["answer"]["request_id"] == f"r1.{number}"
        assert {k: v for k, v in one["answer"].items() if k not in own} == {
            k: v for k, v in expected.items() if k not in own
        }
    assert len({one["answer"]["list_id"] for one in found}) == 4


@asynchronous
async def test_a_faulty_entry_has_its_problem_and_harms_no_other() -> None:
    entries = [{"user_id": "u", "k": 0}, {"user_id": "u"}, "no object", {"user_id": "u", "segment": "nope"},
               {"user_id": "u", "arm": {"x": "y"}}, {"user_id": "u", "more": 1}, {}]  # fmt: skip
    async with serving(ops_tokens="alice:secret") as service:
        found = (await batch(service, *entries))["answers"]
    assert [one["status"] for one in found] == [422, 200, 422, 422, 403, 422, 422]
    assert found[0]["problem"]["errors"][0]["loc"] == ["k"]
    assert found[3]["problem"]["type"].endswith("unknown_segment")
    assert found[1]["answer"]["items"] and found[1]["problem"] is None
    assert all((one["answer"] is None) == (one["status"] != 200) for one in found)


@asynchronous
async def test_a_batch_of_a_hundred_users_is_one_run_of_the_decoder(shared_valkey: Valkey) -> None:
    # Each has an event to encode first, so their jobs are not ready at the same time.
    bodies = [{"user_id": f"u{n}", "events": [{"item_id": "3"}]} for n in range(100)]
    async with serving(redis_url=shared_valkey.url, prefix="batchrun:", deadline_max_ms=60_000) as service:
        before = len(service.engine.batches)
        answers = (await batch(service, *bodies, budget_ms=60_000))["answers"]
        assert service.engine.batches[before:] == [100]
    assert [one["answer"]["user_id"] for one in answers] == [f"u{n}" for n in range(100)]
    assert {one["answer"]["rung"] for one in answers} == {"full"}


@asynchronous
async def test_one_deadline_holds_for_all_entries() -> None:
    async with serving() as service:
        service.engine.go.clear()
        answer = await batch(
            service, *[{"user_id": f"u{n}", "k": 2} for n in range(8)], {"user_id": "u", "budget_ms": 30_000},
            {"user_id": "u", "budget_ms": 1}, budget_ms=150,
        )  # fmt: skip
        service.engine.go.set()
    budgets = [one["answer"]["budget_ms"] for one in answer["answers"]]
    assert budgets == [150] * 9 + [1]
    assert {one["answer"]["rung"] for one in answer["answers"]} <= {"item_cf", "popular"}
    assert all(len(ids(one["answer"])) == 2 for one in answer["answers"][:8])


@pytest.mark.parametrize("body", [{}, {"requests": []}, {"requests": [{}] * 101}, {"requests": 1}, [],
                                  {"requests": [{}], "x": 1}, {"requests": [{}], "budget_ms": 0}])  # fmt: skip
@asynchronous
async def test_a_batch_that_is_none_is_refused_as_a_whole(body: Any) -> None:
    async with serving() as service:
        answer = await service.client.post("/recommend/batch", json=body)
        assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
        assert (await service.client.post("/recommend/batch", content=b"{")).status_code == 400


@asynchronous
async def test_each_list_counts_for_the_rate_of_a_key_and_is_recorded(shared_valkey: Valkey) -> None:
    keys = {"X-API-Key": "k1"}
    async with serving(
        redis_url=shared_valkey.url, prefix="batchrate:", api_keys="shop:k1", api_rate="5/hour"
    ) as service:
        await batch(service, *[{"user_id": "u"}] * 3, headers=keys)
        late = await service.client.post("/recommend/batch", json={"requests": [{"user_id": "u"}] * 3}, headers=keys)
        assert late.status_code == 429 and "retry-after" in late.headers
        await service.settled()
        metrics = service.runtime.metrics
        assert value_of(metrics.recording.lists.labels("recorded")) == 3
