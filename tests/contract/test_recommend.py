"""`POST /recommend`: the answer's shape, the rules every list keeps, and the ladder below the model."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from service.engine.decoding import Decoding
from service.engine.engine import Engine
from service.engine.jobs import decode_key, encode_key
from service.guard.guard import Outcome
from service.metrics.service_metrics import value_of
from service.recommend.request_plan import HISTORY_NOT_READ
from service.schemas.list_answers import RecommendAnswer
from service.store.records import Subject
from service.store.store import Store
from service.store.store_settings import StoreSettings
from tests.support.aio import asynchronous, eventually
from tests.support.clock import FakeClock
from tests.support.engine_jobs import rank_by
from tests.support.fakes import CATEGORIES, N_ITEMS, FakeEngine
from tests.support.processes import ids
from tests.support.serving import Service, serving
from tests.support.valkey import Valkey


@asynchronous
async def test_an_answer_has_the_documented_shape(shared_valkey: Valkey) -> None:
    async with serving(redis_url=shared_valkey.url, prefix="shape:") as service:
        await service.post_events("u1", "1", "2", "3", "5", "7")
        answer = await service.recommend(user_id="u1", k=4)
    RecommendAnswer.model_validate(answer)
    assert ids(answer) == ["39", "38", "37", "36"]
    assert [item["rank"] for item in answer["items"]] == [1, 2, 3, 4]
    assert (answer["source"], answer["rung"], answer["degraded"], answer["reason"]) == (
        "gpt4rec", "full", False, None,
    )  # fmt: skip
    assert answer["budget_ms"] == 2000.0
    assert answer["model_version"] == "fake-1"


@asynchronous
async def test_a_user_without_history_is_served_by_the_start_token(shared_valkey: Valkey) -> None:
    async with serving(redis_url=shared_valkey.url, prefix="start:") as service:
        answer = await service.recommend(user_id="nobody")
    assert (answer["source"], answer["segment"], answer["strategy"]) == ("gpt4rec", "new", "temperature")
    assert float(service.engine.jobs[-1].h[0]) == 0.0


@asynchronous
async def test_acknowledged_event_is_seen_by_the_next_recommend(shared_valkey: Valkey) -> None:
    async with serving(redis_url=shared_valkey.url, prefix="ryw:") as service:
        seen = 0
        for item in range(10):
            await service.post_events("u1", str(item), start_ms=1_700_000_000_000 + item * 1000)
            seen += item
            answer = await service.recommend(user_id="u1")
            job = service.engine.jobs[-1]
            assert (float(job.h[0]), float(job.h[1])) == (item + 1, seen)
            assert str(item) not in ids(answer)
            if item % 3 == 0:
                await service.settled()


@asynchronous
async def test_only_the_tail_is_encoded_once_a_state_is_stored(shared_valkey: Valkey) -> None:
    async with serving(redis_url=shared_valkey.url, prefix="tail:") as service:
        await service.post_events("u1", "1", "2", "3")
        await service.settled()
        await service.recommend(user_id="u1")
        await service.post_events("u1", "4", start_ms=1_700_000_100_000)
        await service.recommend(user_id="u1")
        encoded = service.engine.encoded[1:]  # the first is the start token's
    assert [len(job.events) for job in encoded] == [3, 1]
    assert [job.from_start for job in encoded] == [True, False]


@asynchronous
async def test_a_late_event_makes_the_state_be_rebuilt(shared_valkey: Valkey) -> None:
    async with serving(redis_url=shared_valkey.url, prefix="late:") as service:
        await service.post_events("u1", "1", "2", "3")
        await service.recommend(user_id="u1")
        await service.settled()
        await service.post_events("u1", "9", start_ms=1_600_000_000_000)
        await service.recommend(user_id="u1")
    work = service.engine.encoded[-1]
    assert work.state is None
    assert work.events.item.tolist() == [9, 1, 2, 3]
    assert float(service.engine.jobs[-1].h[1]) == 15.0


@asynchronous
async def test_inline_events_are_used_once_and_not_stored(shared_valkey: Valkey) -> None:
    async with serving(redis_url=shared_valkey.url, prefix="inline:") as service:
        await service.post_events("u1", "1", "2")
        answer = await service.recommend(user_id="u1", events=[{"item_id": "30", "type": "click"}])
        assert float(service.engine.jobs[-1].h[1]) == 33.0
        assert "30" not in ids(answer)
        await service.settled()
        await service.recommend(user_id="u1")
    assert float(service.engine.jobs[-1].h[1]) == 3.0


@asynchronous
async def test_inline_events_alone_need_no_redis() -> None:
    async with serving() as service:
        answer = await service.recommend(events=[{"item_id": "3", "timestamp": "2026-01-01T12:00:00Z"}])
    assert (answer["source"], answer["rung"], answer["user_id"]) == ("gpt4rec", "full", None)


@asynchronous
async def test_a_segment_or_a_decoding_may_be_named() -> None:
    async with serving() as service:
        event = [{"item_id": "3"}]
        conservative = await service.recommend(events=event, segment="conservative")
        mine = await service.recommend(events=event, decoding={"strategy": "top_p", "top_p": 0.5}, seed=7)
        unknown = await service.client.post("/recommend", json={"events": event, "segment": "nope"})
    assert (conservative["segment"], conservative["strategy"]) == ("conservative", "beam")
    assert mine["strategy"] == "top_p"
    assert (service.engine.jobs[-1].request.decoding.top_p, service.engine.jobs[-1].request.seed) == (0.5, 7)
    assert unknown.status_code == 422
    assert unknown.json()["errors"][0]["loc"] == ["segment"]


@asynchronous
async def test_a_fresh_list_gets_another_seed_for_every_request_id() -> None:
    async with serving() as service:
        for request_id in ("a", "b", "a"):
            body = {"events": [{"item_id": "3"}], "seed": "fresh"}
            await service.client.post("/recommend", json=body, headers={"X-Request-Id": request_id})
    first, second, again = (job.request.seed for job in service.engine.jobs)
    assert first == again != second


@asynchronous
async def test_requests_without_a_user_or_session_draw_each_by_itself() -> None:
    async with serving() as service:
        for request_id in ("a", "b"):
            body = {"events": [{"item_id": "3"}]}
            await service.client.post("/recommend", json=body, headers={"X-Request-Id": request_id})
    first, second = (job.request.seed for job in service.engine.jobs)
    assert first != second


# -- the rules every list keeps, on every rung


def _break(service: Service, rung: str) -> None:
    engine = service.engine
    engine.fail_full_width = rung == "narrow"
    engine.fail_jobs = rung in ("item_cf", "popular")


@given(
    rung=st.sampled_from(["full", "narrow", "item_cf", "popular"]),
    k=st.integers(1, 50),
    exclude=st.lists(st.integers(0, N_ITEMS + 5).map(str), max_size=40),
    categories=st.none() | st.lists(st.sampled_from([*CATEGORIES, "None"]), min_size=1, max_size=3),
    out_of_stock=st.frozensets(st.integers(0, N_ITEMS - 1), max_size=30),
    events=st.lists(st.integers(0, N_ITEMS + 5).map(str), min_size=1, max_size=20),
    exclude_seen=st.booleans(),
)
@settings(max_examples=30, deadline=None)
def test_every_recommended_item_is_in_the_catalogue_and_allowed_and_not_excluded(
    rung: str,
    k: int,
    exclude: list[str],
    categories: list[str] | None,
    out_of_stock: frozenset[int],
    events: list[str],
    exclude_seen: bool,
) -> None:
    async def scenario() -> None:
        async with serving(FakeEngine(out_of_stock)) as service:
            _break(service, rung)
            answer = await service.recommend(
                events=[{"item_id": item} for item in (["absent"] if rung == "popular" else events)],
                k=k,
                exclude=exclude,
                exclude_seen=exclude_seen,
                filter=None if categories is None else {"category": categories},
            )
        RecommendAnswer.model_validate(answer)
        forbidden = {*exclude, *map(str, out_of_stock)}
        if exclude_seen and rung != "popular":
            forbidden |= set(events)
        allowed = [
            str(i)
            for i in range(N_ITEMS)
            if str(i) not in forbidden and (categories is None or CATEGORIES[i % 4] in categories)
        ]
        got = ids(answer)
        assert len(got) == len(set(got)) == min(k, len(allowed))
        assert set(got) <= set(allowed)
        assert answer["degraded"] == (answer["rung"] != "full")
        if categories is not None and not set(categories) & set(CATEGORIES):
            assert (answer["rung"], answer["reason"]) == ("full", "not_enough_items")
            assert not service.engine.jobs, "a list that is known to be empty needs no run"
        elif rung in ("full", "narrow"):
            assert answer["rung"] == rung
            short = len(allowed) < k
            expected = "model_error" if rung == "narrow" else "not_enough_items" if short else None
            assert answer["reason"] == expected
        else:
            assert answer["source"] in ("item_cf", "popular")
            assert answer["reason"] == "model_error"

    asyncio.run(scenario())


# -- filters


def _hold_builder(service: Service) -> Callable[[], None]:
    """Holds the thread that builds filters, by a job of its own, until the result is called."""
    go = threading.Event()
    service.runtime.space.model.filters._thread.submit(go.wait, 30.0)
    return go.set


@asynchronous
async def test_a_filter_that_is_not_ready_costs_its_caller_the_model_and_nobody_else_anything() -> None:
    """Item-CF answers in time, under the same filter and complete; the breaker and the budgets do not count it."""
    async with serving() as service:
        guard = service.runtime.space.guard
        free = _hold_builder(service)
        body: dict[str, Any] = {"events": [{"item_id": "3"}], "filter": {"category": ["War", "z"]}, "k": 6}
        late = await asyncio.gather(*(service.recommend(**body, budget_ms=800) for _ in range(3)))
        others = await service.recommend(events=[{"item_id": "3"}])
        status = guard.status()["budgets"]
        free()

        async def ready() -> bool:
            return bool((await service.recommend(**body))["rung"] == "full")

        await eventually(ready, within_s=10.0)
        again = await service.recommend(**{**body, "filter": {"category": ["War"]}})
    for answer in late:
        RecommendAnswer.model_validate(answer)
        assert (answer["source"], answer["reason"]) == ("popular", "filter_not_ready")
        assert ids(answer) == ["7", "11", "15", "19", "23", "27"]
        assert answer["latency_ms"] < 15_000, "nobody waits for the builder"
    assert (others["rung"], again["rung"]) == ("full", "full")
    assert (status["attempts"]["total"], status["burn_rate"]["served"]["1m"]) == (1, 0)


@asynchronous
async def test_invented_filters_take_nothing_from_others() -> None:
    """A caller that invents filters spends its own ration: it gets item-CF lists, and others get new filters built."""
    async with serving(api_keys="greedy:a,modest:b", filter_build_share=1e-9) as service:
        greedy, modest = ({"Authorization": f"Bearer {key}"} for key in "ab")
        ration = service.runtime.space.model.filters._ration
        while ration.refusal("key:greedy") is None:
            ration.begin("key:greedy")
        values = [*CATEGORIES, "z1", "z2"]
        reasons = set()
        for n in range(40):
            wanted = {"category": [values[n % 4], values[(n + 1) % 6], f"z{n}"]}
            body = {"events": [{"item_id": "3"}], "filter": wanted}
            answer = (await service.client.post("/recommend", json=body, headers=greedy)).json()
            reasons.add(answer["reason"])
            known = {CATEGORIES.index(name) for name in wanted["category"] if name in CATEGORIES}
            assert {int(item) % 4 for item in ids(answer)} <= known
            assert len(ids(answer)) == min(10, 10 * len(known) - (3 in known))
        other = {"events": [{"item_id": "3"}], "filter": {"category": ["Drama"]}, "k": 5}
        answer = (await service.client.post("/recommend", json=other, headers=modest)).json()
        metrics = service.runtime.metrics
    assert reasons == {"filter_not_ready"}
    assert answer["rung"] == "full"
    assert value_of(metrics.catalogue.filter_builds, "built") == value_of(metrics.catalogue.filters_held) == 1


# -- the ladder


async def _break_model(fault: str, service: Service) -> None:
    engine, guard = service.engine, service.runtime.space.guard
    match fault:
        case "model broken":
            engine.error = RuntimeError("session gone")
        case "model dead":
            engine.error = SystemExit()
        case "model hangs":
            engine.go.clear()
        case "model rejects jobs":
            engine.fail_jobs = True
        case "model slow":
            engine.delay_s = 1.2
        case "model spared by the breaker":
            for _ in range(50):
                guard.observe(Outcome.FAILED)
            assert guard.status()["breaker"] == "open"


async def _break_redis(fault: str, server: Valkey) -> None:
    match fault:
        case "redis frozen":
            server.sigstop()
        case "redis killed":
            server.kill9()
        case "log damaged":
            async with Redis.from_url(server.url) as redis:
                for subject in ("u:known", "u:nobody", "s:s1"):
                    await redis.zadd(f"always:{{{subject}}}:events", {b"not ours": 1.0})
        case "log of another kind":
            async with Redis.from_url(server.url) as redis:
                await redis.delete("always:{u:known}:events")
                await redis.set("always:{u:known}:events", b"not ours")


FAULTS = (
    "model broken", "model dead", "model hangs", "model rejects jobs", "model slow", "model spared by the breaker",
    "redis frozen", "redis killed", "log damaged", "log of another kind",
)  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
@asynchronous
async def test_recommend_always_answers(fault: str, valkey: Valkey) -> None:
    """Within the budget, with as many items as were asked for, whoever asks and whatever is broken."""
    store = Store(
        StoreSettings(url=valkey.url, prefix="always:", history_cap=12, read_timeout_ms=300, write_timeout_ms=2000)
    )
    # Where Redis is killed, what waits to be recorded cannot be written when the service stops.
    async with serving(store=store, drain_timeout_s=0.1) as service:
        await service.post_events("known", "1", "2", "3", "5", "7")
        assert (await service.recommend(user_id="known"))["rung"] == "full"
        await service.settled()
        await _break_model(fault, service)
        await _break_redis(fault, valkey)
        for body in ({"user_id": "known"}, {"user_id": "nobody"}, {"session_id": "s1"}, {"events": [{"item_id": "3"}]}):
            answer = await service.recommend(**body, k=6, budget_ms=1000)
            RecommendAnswer.model_validate(answer)
            assert len(ids(answer)) == 6, (body, answer)
            assert answer["latency_ms"] < 1000
            assert answer["degraded"] == (answer["rung"] != "full") == (answer["reason"] is not None)
            if fault.startswith("model"):
                assert answer["source"] != "gpt4rec"
        if fault == "redis frozen":
            valkey.sigcont()
    await store.close()


@asynchronous
async def test_the_same_question_gets_the_same_list_a_moment_later(
    random_artifact: Path, shared_valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With and without a stored history: nearly equal scores must not trade places as the seconds pass."""
    engine = cast("FakeEngine", Engine.open(random_artifact, device="cpu", threads=1))
    question: dict[str, Any] = {"user_id": "u", "k": 6, "decoding": {"strategy": "beam"}}
    inline = {"events": [{"item_id": "i3"}, {"item_id": "i5"}], "k": 6, "decoding": {"strategy": "beam"}}
    async with serving(engine, redis_url=shared_valkey.url, prefix="again:", history_cap=None) as service:
        clock = FakeClock(1_700_000_040.0)  # the start of a minute
        monkeypatch.setattr(service.runtime.space.recommender, "_wall_clock", clock)
        events = [{"user_id": "u", "item_id": f"i{n}", "type": "view", "timestamp": clock() - 1} for n in (1, 2)]
        await service.client.post("/events", json={"events": events})
        answers: list[tuple[Any, Any]] = []
        for _ in range(6):
            both = [(await service.client.post("/recommend", json=body)).json()["items"] for body in (question, inline)]
            answers.append((both[0], both[1]))
            clock.advance(9.7)
    assert answers == [answers[0]] * 6


@asynchronous
async def test_recommend_always_answers_where_the_model_computes_nan(random_artifact: Path) -> None:
    engine = Engine.open(random_artifact, device="cpu", threads=1)
    body: dict[str, Any] = {"events": [{"item_id": "i3"}], "k": 6, "decoding": {"strategy": "beam"}}
    async with serving(cast("FakeEngine", engine)) as service:
        well = await service.recommend(**body)
        rank_by(engine, float("nan"), float("nan"))
        answer = await service.recommend(**body)
    RecommendAnswer.model_validate(answer)
    assert (well["rung"], answer["rung"], answer["reason"]) == ("full", "item_cf", "model_error")
    assert len(ids(answer)) == 6


@asynchronous
async def test_a_broken_model_is_answered_by_item_cf(shared_valkey: Valkey) -> None:
    async with serving(redis_url=shared_valkey.url, prefix="broken:") as service:
        service.engine.error = RuntimeError("session gone")
        await service.post_events("u1", "1", "2", "3")
        answer = await service.recommend(user_id="u1", k=5)
    assert (answer["source"], answer["rung"], answer["degraded"]) == ("item_cf", "item_cf", True)
    assert answer["reason"] == "model_error"
    assert ids(answer)[:2] == ["4", "5"]
    assert ids(answer)[2:] == ["0", "6", "7"]


@asynchronous
async def test_a_failure_of_the_full_width_goes_one_rung_down() -> None:
    async with serving() as service:
        service.engine.fail_full_width = True
        answer = await service.recommend(events=[{"item_id": "3"}], decoding={"strategy": "beam"})
    assert (answer["source"], answer["rung"], answer["reason"]) == ("gpt4rec", "narrow", "model_error")


@asynchronous
async def test_fallback_within_budget() -> None:
    """A hanging engine costs the caller its budget and no more; the answer comes before it ends."""
    async with serving() as service:
        service.engine.go.clear()
        began = time.monotonic()
        answer = await service.recommend(events=[{"item_id": "3"}], budget_ms=400)
        took_ms = (time.monotonic() - began) * 1000
    assert (answer["source"], answer["reason"], answer["budget_ms"]) == ("item_cf", "deadline", 400)
    assert answer["latency_ms"] < 400
    assert took_ms < 450


@asynchronous
async def test_a_request_that_arrives_too_late_is_still_answered() -> None:
    async with serving() as service:
        start = str(int((time.time() - 30) * 1000))
        answer = await service.client.post(
            "/recommend", json={"events": [{"item_id": "3"}]}, headers={"X-Request-Start": start}
        )
        missed = value_of(service.runtime.metrics.deadline_missed, "popular")
    assert answer.status_code == 200
    assert (answer.json()["source"], answer.json()["reason"]) == ("popular", "deadline")
    assert missed == 1
    assert not service.engine.jobs


@asynchronous
async def test_the_start_header_can_only_shorten_the_deadline() -> None:
    async with serving() as service:
        for start in (str(int((time.time() + 3600) * 1000)), "soon", "nan", "-inf", ""):
            answer = await service.client.post(
                "/recommend", json={"events": [{"item_id": "3"}]}, headers={"X-Request-Start": start}
            )
            assert answer.json()["rung"] == "full"


@asynchronous
async def test_a_budget_is_bounded_by_the_greatest_allowed() -> None:
    async with serving(deadline_ms=100.0, deadline_max_ms=200.0) as service:
        answer = await service.recommend(events=[{"item_id": "3"}], budget_ms=5000)
    assert answer["budget_ms"] == 200.0


@asynchronous
async def test_redis_away_gives_popular_items_or_the_inline_events() -> None:
    async with serving() as service:
        plain = await service.recommend(user_id="u1")
        with_events = await service.recommend(user_id="u1", events=[{"item_id": "3"}])
        service.engine.fail_jobs = True
        broken_too = await service.recommend(user_id="u1", events=[{"item_id": "3"}])
    assert (plain["source"], plain["reason"], plain["degraded"]) == ("popular", "state_unavailable", True)
    assert (with_events["source"], with_events["rung"]) == ("gpt4rec", "narrow")
    assert with_events["reason"] == "state_unavailable"
    assert (broken_too["source"], broken_too["reason"]) == ("item_cf", "state_unavailable")


@asynchronous
async def test_a_list_that_may_hold_seen_items_says_so(shared_valkey: Valkey) -> None:
    async with serving(redis_url=shared_valkey.url, prefix="unread:") as service:
        await service.post_events("u1", "0", "1")
        unread = await service.recommend(user_id="u1", budget_ms=1)
        wanted = await service.recommend(user_id="u1", budget_ms=1, exclude_seen=False)
        unknown = await service.recommend(events=[{"item_id": "3"}], budget_ms=1)
        read = await service.recommend(user_id="u1")
    async with serving() as service:  # Redis is away
        away = await service.recommend(user_id="u1")
        with_events = await service.recommend(user_id="u1", events=[{"item_id": "3"}])
    assert (unread["rung"], unread["reason"], ids(unread)[:2]) == ("popular", "deadline", ["0", "1"])
    for answer in (unread, away, with_events):
        assert answer["warnings"] == [HISTORY_NOT_READ]
    for answer in (wanted, unknown, read):
        assert answer["warnings"] == []


@asynchronous
async def test_redis_slow_does_not_cost_more_than_the_read_time_out(valkey: Valkey) -> None:
    store = Store(StoreSettings(url=valkey.url, prefix="slow:", read_timeout_ms=50, write_timeout_ms=2000))
    async with serving(store=store) as service:
        await service.post_events("u1", "1", "2")
        valkey.sigstop()
        answer = await service.recommend(user_id="u1", budget_ms=2000)
        valkey.sigcont()
        assert (answer["source"], answer["reason"]) == ("popular", "state_unavailable")
        assert answer["latency_ms"] < 1000

        async def recovered() -> bool:
            answer = await service.recommend(user_id="u1")
            return bool(answer["rung"] == "full")

        await eventually(recovered, within_s=10.0)
    await store.close()


@asynchronous
async def test_a_full_queue_is_answered_by_item_cf_with_overload() -> None:
    async with serving(queue_max=1, batch_max=1) as service:
        service.engine.go.clear()
        first = asyncio.ensure_future(service.recommend(events=[{"item_id": "3"}], budget_ms=20_000))
        await asyncio.to_thread(service.engine.entered.wait, 10.0)
        second = asyncio.ensure_future(service.recommend(events=[{"item_id": "3"}], budget_ms=20_000))

        async def queued() -> bool:
            return service.runtime.space.model.decoder.depth == 2

        await eventually(queued, within_s=10.0)
        third = await service.recommend(events=[{"item_id": "3"}], budget_ms=20_000)
        service.engine.go.set()
        assert {(await first)["rung"], (await second)["rung"]} == {"full"}
    assert (third["source"], third["reason"]) == ("item_cf", "overload")


@asynchronous
async def test_an_open_breaker_spares_the_model() -> None:
    async with serving(breaker_min_attempts=4, breaker_open_s=600.0) as service:
        service.engine.fail_jobs = True
        for _ in range(4):
            await service.recommend(events=[{"item_id": "3"}])
        asked = len(service.engine.jobs)
        answer = await service.recommend(events=[{"item_id": "3"}])
        metrics = (await service.client.get("/metrics")).text
    assert (answer["source"], answer["reason"]) == ("item_cf", "breaker_open")
    assert len(service.engine.jobs) == asked
    assert 'gpt4rec_breaker_state{state="open"} 1.0' in metrics


@asynchronous
async def test_a_cancelled_request_is_no_model_failure() -> None:
    async with serving() as service:
        outcomes: list[Outcome] = []
        observe = service.runtime.space.guard.observe

        def spy(outcome: Outcome, *more: Any) -> None:
            outcomes.append(outcome)
            observe(outcome, *more)

        service.runtime.space.guard.observe = spy  # type: ignore[method-assign,assignment]
        service.engine.go.clear()
        asking = asyncio.ensure_future(service.recommend(events=[{"item_id": "3"}], budget_ms=20_000))
        await asyncio.to_thread(service.engine.entered.wait, 10.0)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert outcomes == [Outcome.UNUSED]


@asynchronous
async def test_a_history_too_long_for_the_budget_is_encoded_behind_the_answer(shared_valkey: Valkey) -> None:
    async with serving(redis_url=shared_valkey.url, prefix="catchup:") as service:
        service.engine.encode_go.clear()
        await service.post_events("u1", "1", "2", "3", "4")
        answer = await service.recommend(user_id="u1", budget_ms=200)
        assert (answer["source"], answer["reason"]) == ("item_cf", "state_stale")
        service.engine.encode_go.set()
        await service.settled()
        await service.recommend(user_id="u1")
    assert float(service.engine.jobs[-1].h[0]) == 4.0
    assert [len(work.events) for work in service.engine.encoded] == [0, 4]


@asynchronous
async def test_a_state_too_far_behind_is_stale_and_item_cf_answers(shared_valkey: Valkey) -> None:
    """Where encoding is known to take longer than the request has, the engine is not asked; the raw events give the
    list, and the state is brought up to date behind it."""
    async with serving(redis_url=shared_valkey.url, prefix="stale:") as service:
        service.engine.encode_go.clear()
        await service.post_events("u1", *map(str, range(10)))
        service.runtime.space.model.encoder.costs.ran(encode_key(10), 1, 1.0)
        answer = await service.recommend(user_id="u1", budget_ms=400)
        assert (answer["source"], answer["rung"], answer["reason"]) == ("item_cf", "item_cf", "state_stale")
        assert answer["degraded"] and answer["latency_ms"] < 400
        assert ids(answer)[:2] == ["10", "11"]
        service.engine.encode_go.set()
        await service.settled()
        assert [len(work.events) for work in service.engine.encoded] == [0, 10]
        assert not service.engine.jobs
        again = await service.recommend(user_id="u1", budget_ms=400)
        attempts = service.runtime.space.guard.status()["budgets"]["attempts"]["total"]
    assert (again["rung"], again["reason"]) == ("full", None)
    assert attempts == 1  # what was not tried is no late attempt


@asynchronous
async def test_a_slow_decoder_is_not_blamed_on_the_state(shared_valkey: Valkey) -> None:
    """A user without history has nothing to encode, whatever became of the forecast since the decision."""
    async with serving(redis_url=shared_valkey.url, prefix="nothing:") as service:
        for _ in range(15):
            service.runtime.space.model.decoder.costs.ran(decode_key(8, Decoding("temperature"), 5), 1, 9.0)
        reasons = []

        async def tried() -> bool:
            answer = await service.recommend(user_id="nobody", k=5)
            reasons.append(answer["reason"])
            return bool(answer["rung"] == "full")

        await eventually(tried, within_s=10.0)  # an idle engine is asked again, and answers
    assert set(reasons) == {"deadline", None}


@asynchronous
async def test_a_run_that_a_long_history_makes_late_is_stale_and_counts_as_late(shared_valkey: Valkey) -> None:
    async with serving(redis_url=shared_valkey.url, prefix="stale2:") as service:
        service.engine.encode_go.clear()
        await service.post_events("u1", *map(str, range(10)))
        answer = await service.recommend(user_id="u1", budget_ms=200)
        attempts = service.runtime.space.guard.status()["budgets"]["attempts"]
    assert (answer["source"], answer["reason"]) == ("item_cf", "state_stale")
    assert (attempts["total"], attempts["late_or_failed"]) == (1, 1)


@asynchronous
async def test_a_stored_state_that_breaks_the_model_is_rebuilt_from_the_log(shared_valkey: Valkey) -> None:
    async with serving(redis_url=shared_valkey.url, prefix="poison:") as service:
        await service.post_events("u1", "1", "2", "3")
        await service.settled()
        profile = service.runtime.space.states.cache.get(Subject("user", "u1"), service.runtime.space.model)
        assert profile is not None and profile.base is not None
        profile.base = replace(profile.base, h=profile.base.h * np.float32(np.nan))
        answer = await service.recommend(user_id="u1")
        assert (answer["source"], answer["rung"], answer["reason"]) == ("gpt4rec", "narrow", "model_error")
        assert len(service.engine.encoded[-1].events.item) == 3
        await service.settled()
        again = await service.recommend(user_id="u1")
        assert (again["rung"], again["reason"]) == ("full", None)
        service.engine.fail_states = True
        await service.post_events("u1", "4", start_ms=1_700_000_100_000)
        answer = await service.recommend(user_id="u1")
        assert (answer["source"], answer["rung"], answer["reason"]) == ("gpt4rec", "narrow", "model_error")
        assert service.engine.encoded[-1].events.item.tolist() == [1, 2, 3, 4]


@asynchronous
async def test_burn_rates_tell_late_from_failed_attempts() -> None:
    async with serving(latency_budget_share=0.1, error_budget_share=0.5) as service:
        await service.recommend(events=[{"item_id": "3"}])
        await service.recommend(events=[{"item_id": "3"}])
        service.engine.fail_jobs = True
        await service.recommend(events=[{"item_id": "3"}])  # tried at both widths, and counted once
        service.engine.go.clear()
        await service.recommend(events=[{"item_id": "3"}], budget_ms=600)
        text = (await service.client.get("/metrics")).text
    for window in ("1m", "5m", "1h"):
        assert f'gpt4rec_error_budget_burn_rate{{objective="latency",window="{window}"}} 2.5' in text
        assert f'gpt4rec_error_budget_burn_rate{{objective="errors",window="{window}"}} 0.5' in text


@asynchronous
async def test_a_dead_engine_thread_still_leaves_every_answer(shared_valkey: Valkey) -> None:
    async with serving(redis_url=shared_valkey.url, prefix="dead:") as service:
        service.engine.error = KeyboardInterrupt()
        answers = [await service.recommend(events=[{"item_id": "3"}]) for _ in range(3)]
        health = await service.client.get("/healthz")
        ready = await service.client.get("/readyz")
    assert {answer["source"] for answer in answers} == {"item_cf"}
    assert (health.status_code, health.json()["engine"]) == (200, False)
    assert (ready.status_code, ready.json()["status"]) == (503, "not_ready")


# -- warnings


@asynchronous
async def test_what_nobody_knows_is_answered_and_named() -> None:
    async with serving(playground=True) as service:
        answer = await service.recommend(
            events=[{"item_id": "3"}, {"item_id": "no-item", "type": "zoom"}],
            filter={"category": ["Drama", "Dramma"]},
            scene="moon",
            context={"category": "Westren", "weather": "rain"},
            features={"age": 30},
        )
        hostile = await service.recommend(events=[{"item_id": "3"}], scene="\u202enoom", features={"\u2028": "x"})
        known = await service.recommend(events=[{"item_id": "3", "type": "purchase"}], filter={"category": ["Drama"]})
        found = (await service.client.get("/playground/items", params={"item_id": ["3", "no-item"]})).json()
    RecommendAnswer.model_validate(answer)
    assert (answer["source"], len(answer["items"])) == ("gpt4rec", 10)
    assert answer["warnings"] == [
        'the model reads these types of events as "other": zoom',
        "the catalogue does not have these items of events: no-item",
        "no item of the catalogue has these values of the filter: category=Dramma",
        "features: the model does not use these names: age",
        "context: the model does not use these names: weather",
        "context: the model does not know these values: category=Westren",
        "scene: the model does not know these values: scene=moon",
    ]
    assert known["warnings"] == []
    assert hostile["warnings"] == [
        r"features: the model does not use these names: \u2028",
        r"scene: the model does not know these values: scene=\u202enoom",
    ]
    assert [item["item_id"] for item in found["items"]] == ["3"]
    assert found["warnings"] == ["the catalogue does not have these items: no-item"]


@asynchronous
async def test_warnings_are_bounded_whatever_a_request_says() -> None:
    long = [f"{n:03}{'x' * 61}" for n in range(64)]
    async with serving() as service:
        answer = await service.recommend(
            events=[{"item_id": f"i{n}{'y' * 120}", "type": name} for n, name in enumerate(long)],
            filter={"category": long},
            context={f"c{n}": "v" for n in range(32)},
            features={f"f{n}": "v" * 256 for n in range(32)},
        )
    assert len(answer["warnings"]) == 5
    assert all(len(warning) < 1000 and " more" in warning for warning in answer["warnings"])
