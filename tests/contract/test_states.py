"""States behind the answers: advanced once, kept by version, never older than the log, on any replica."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from service.history import state_blob
from service.history.profile import extended
from service.history.profile_cache import ProfileCache
from service.metrics.service_metrics import value_of
from service.store.records import NewEvent, Subject, UserRecord
from service.store.store import Store
from service.store.store_settings import StoreSettings
from tests.support.aio import asynchronous, eventually
from tests.support.fakes import LAYOUT, FakeEngine
from tests.support.serving import Service, serving
from tests.support.valkey import Valkey

T = 1_700_000_000_000
USER = Subject("user", "u1")


def seen(service: Service) -> tuple[float, float]:
    """How many events the last list had seen, and the sum of their items."""
    h = service.engine.jobs[-1].h
    return float(h[0]), float(h[1])


async def stored_blob(service: Service, subject: Subject = USER) -> state_blob.VersionedState | None:
    record = await service.runtime.space.store.read(subject, "fake-1")
    return state_blob.unpack(record.blob, LAYOUT)


@asynchronous
async def test_an_accepted_event_is_encoded_and_stored_before_anybody_asks(shared_valkey: Valkey) -> None:
    async with serving(redis_url=shared_valkey.url, prefix="behind:") as service:
        await service.post_events("u1", "1", "2")
        await service.settled()
        base = await stored_blob(service)
        assert base is not None and base.h.tolist()[:2] == [2.0, 3.0]
        encoded = len(service.engine.encoded)
        await service.recommend(user_id="u1")
        assert seen(service) == (2.0, 3.0)
        assert len(service.engine.encoded) == encoded


@asynchronous
async def test_users_whose_events_come_together_are_encoded_together(shared_valkey: Valkey) -> None:
    async with serving(redis_url=shared_valkey.url, prefix="together:") as service:
        service.engine.encode_go.clear()
        await service.post_events("first", "1")

        async def encoding() -> bool:
            return len(service.engine.encoded) == 2

        await eventually(encoding, within_s=10.0)
        batches: list[int] = []
        encode = service.runtime.space.model.encoder._engine_run

        def counted(jobs: object) -> object:
            batches.append(len(jobs))  # type: ignore[arg-type]
            return encode(jobs)  # type: ignore[arg-type]

        service.runtime.space.model.encoder._engine_run = counted  # type: ignore[assignment]
        events = [{"user_id": f"u{n}", "item_id": "3", "type": "view", "timestamp": T} for n in range(12)]
        assert (await service.client.post("/events", json={"events": events})).status_code == 200
        service.engine.encode_go.set()
        await service.settled()
    assert sum(batches) == 12 and len(batches) <= 6  # the first may start before the last has been handed over


@asynchronous
async def test_requests_for_one_user_share_one_encoding(shared_valkey: Valkey) -> None:
    async with serving(redis_url=shared_valkey.url, prefix="flight:", write_behind_max=1) as service:
        service.engine.encode_go.clear()
        await service.post_events("u1", "1", "2", "3")
        asking = [asyncio.ensure_future(service.recommend(user_id="u1")) for _ in range(8)]

        async def all_wait() -> bool:
            return bool(value_of(service.runtime.metrics.inflight) == 8)

        await eventually(all_wait, within_s=10.0)
        service.engine.encode_go.set()
        answers = await asyncio.gather(*asking)
        assert {answer["rung"] for answer in answers} == {"full"}
        assert len(service.engine.encoded) == 2  # the start token's, and one for all
        await service.recommend(user_id="u1")
        assert len(service.engine.encoded) == 2


@asynchronous
async def test_requests_that_read_the_same_history_at_once_share_one_encoding(shared_valkey: Valkey) -> None:
    async with serving(redis_url=shared_valkey.url, prefix="flight2:") as writer:
        writer.engine.encode_go.clear()
        await writer.post_events("u1", "1", "2", "3")
        async with serving(redis_url=shared_valkey.url, prefix="flight2:") as service:
            service.engine.encode_go.clear()
            asking = [asyncio.ensure_future(service.recommend(user_id="u1")) for _ in range(4)]

            async def encoding() -> bool:
                return len(service.engine.encoded) == 2

            await eventually(encoding, within_s=10.0)
            service.engine.encode_go.set()
            await asyncio.gather(*asking)
            await service.recommend(user_id="u1")
            assert len(service.engine.encoded) == 2
        writer.engine.encode_go.set()


@asynchronous
async def test_a_state_that_cannot_be_stored_stops_nobody_elses(shared_valkey: Valkey) -> None:
    async with serving(redis_url=shared_valkey.url, prefix="unstorable:") as service:
        await service.post_events("bad", "1")
        await service.settled()
        profile = service.runtime.space.states.cache.get(Subject("user", "bad"), service.runtime.space.model)
        assert profile is not None and profile.base is not None
        profile.base = replace(profile.base, version="not a version")
        service.runtime.space.write_behind.queue.add_state(profile)
        await service.settled()
        await service.post_events("u1", "1", "2")
        await service.settled()
        base = await stored_blob(service)
    assert base is not None and base.h.tolist()[:2] == [2.0, 3.0]


@asynchronous
async def test_a_repeat_visitor_moves_a_few_hundred_bytes(shared_valkey: Valkey) -> None:
    async with serving(redis_url=shared_valkey.url, prefix="bytes:") as service:
        await service.post_events("u1", *map(str, range(12)))
        await service.recommend(user_id="u1")
        await service.settled()
        moved = []
        for _ in range(5):  # the poll of the mode moves a few bytes of its own now and then
            before, then = await _output_bytes(service), await _output_bytes(service)
            await service.recommend(user_id="u1")
            moved.append(await _output_bytes(service) - then - (then - before))
        assert 0 < min(moved) < 300
        metrics = (await service.client.get("/metrics")).text
    assert 'gpt4rec_state_cache_total{level="memory",outcome="hit"}' in metrics


async def _output_bytes(service: Service) -> int:
    found: dict[str, int] = await service.runtime.space.store._link.command("INFO", "stats", timeout_s=5)
    return found["total_net_output_bytes"]


@asynchronous
async def test_what_another_replica_wrote_is_seen_at_once(shared_valkey: Valkey) -> None:
    async with (
        serving(redis_url=shared_valkey.url, prefix="two:") as one,
        serving(redis_url=shared_valkey.url, prefix="two:") as other,
    ):
        total = 0
        for n in range(12):
            total += n
            await (one, other)[n % 2].post_events("u1", str(n), start_ms=T + n)
            for service in (other, one):
                await service.recommend(user_id="u1")
                assert seen(service) == (n + 1, total)


@asynchronous
async def test_an_erased_history_is_not_remembered(shared_valkey: Valkey) -> None:
    async with (
        serving(redis_url=shared_valkey.url, prefix="erased:", operator=True) as one,
        serving(redis_url=shared_valkey.url, prefix="erased:", operator=True) as other,
    ):
        await one.post_events("u1", "1", "2", "3")
        for service in (one, other):
            await service.recommend(user_id="u1")
            await service.settled()
        assert (await one.client.delete("/users/u1")).status_code == 200
        assert len(one.runtime.space.states.cache) == 0
        for service in (one, other):
            await service.recommend(user_id="u1")
            assert seen(service) == (0.0, 0.0)
        await other.post_events("u1", "5")
        for service in (one, other):
            await service.recommend(user_id="u1")
            assert seen(service) == (1.0, 5.0)


@asynchronous
async def test_users_beyond_the_bound_are_left_to_the_next_request(shared_valkey: Valkey) -> None:
    async with serving(redis_url=shared_valkey.url, prefix="bound:", write_behind_max=2) as service:
        events = [{"user_id": f"u{n}", "item_id": str(n), "type": "view", "timestamp": T} for n in range(6)]
        assert (await service.client.post("/events", json={"events": events})).status_code == 200
        await service.settled()
        assert len(service.engine.encoded) == 3
        for n in range(6):
            await service.recommend(user_id=f"u{n}")
            assert seen(service) == (1.0, float(n))
        text = (await service.client.get("/metrics")).text
    assert 'gpt4rec_state_cache_total{level="state",outcome="dropped"} 4.0' in text


@asynchronous
async def test_states_under_way_are_stored_before_the_service_ends(shared_valkey: Valkey) -> None:
    engine = FakeEngine()
    async with serving(engine, redis_url=shared_valkey.url, prefix="drain:") as service:
        engine.encode_go.clear()
        await service.post_events("u1", "1", "2")
        asyncio.get_running_loop().call_later(0.05, engine.encode_go.set)
    async with serving(redis_url=shared_valkey.url, prefix="drain:") as service:
        base = await stored_blob(service)
    assert base is not None and base.h.tolist()[:2] == [2.0, 3.0]


@asynchronous
async def test_the_hidden_state_alone_gives_the_same_lists(shared_valkey: Valkey) -> None:
    async with serving(redis_url=shared_valkey.url, prefix="h:", state="h_only") as service:
        total = 0
        for n in range(6):
            total += n
            await service.post_events("u1", str(n), start_ms=T + n)
            if n % 2:
                await service.settled()
            await service.recommend(user_id="u1")
            assert seen(service) == (n + 1, total)
        await service.settled()
        base = await stored_blob(service)
        assert base is not None and base.state is None
        assert all(work.state is None for work in service.engine.encoded)
        await service.recommend(user_id="u1", events=[{"item_id": "30"}])
        assert seen(service) == (7.0, total + 30)


# -- the parts


events_given = st.builds(
    lambda item, offset, event_id: NewEvent(item, "view", T + offset, event_id),
    st.sampled_from(["1", "2", "3"]),
    st.integers(0, 6),
    st.one_of(st.none(), st.sampled_from(["e1", "e2"])),
)


def test_a_record_extended_here_is_the_record_the_store_has_where_the_versions_agree(shared_valkey: Valkey) -> None:
    with asyncio.Runner() as runner:
        config = StoreSettings(
            url=shared_valkey.url, prefix=f"t{uuid.uuid4().hex}:", history_cap=5, read_timeout_ms=2000,
            write_timeout_ms=2000,
        )  # fmt: skip
        store = runner.run(Store.connect(config))
        agreed = 0

        @settings(max_examples=150, deadline=None)
        @given(st.lists(st.lists(events_given, min_size=1, max_size=4), max_size=5))
        def check(batches: list[list[NewEvent]]) -> None:
            nonlocal agreed
            subject = Subject("user", uuid.uuid4().hex)
            record, newest = UserRecord("", ()), 0
            for batch in batches:
                here = extended(record, batch, subject, 5, store.settings.seen_max)
                result = runner.run(store.append(subject, batch))
                there = replace(runner.run(store.read(subject, "m")), blob=None)
                if here is not None and here.same_as(result.version, result.seen_stamp):
                    assert here == there
                    agreed += 1
                elif result.duplicates == 0 and min(e.time_ms for e in batch) >= newest:
                    raise AssertionError("events in order were not foreseen")
                record, newest = there, max(newest, *(e.time_ms for e in batch))

        check()
        runner.run(store.close())
        assert agreed > 20


@asynchronous
async def test_the_cache_is_bounded_by_bytes_and_forgets_the_least_recently_used(shared_valkey: Valkey) -> None:
    async with serving(redis_url=shared_valkey.url, prefix="lru:", cache_mib=0.05) as service:
        cache = service.runtime.space.states.cache
        for n in range(60):
            await service.post_events(f"u{n}", "1", "2", "3", "4")
            await service.recommend(user_id="u0")
            assert cache.nbytes <= 0.05 * 2**20
        await service.settled()
        assert 3 < len(cache) < 60
        assert cache.get(Subject("user", "u0"), service.runtime.space.model) is not None
        assert cache.get(Subject("user", "u1"), service.runtime.space.model) is None
        assert cache.get(Subject("user", "u0"), replace(service.runtime.space.model)) is None
        await service.recommend(user_id="u1")
        assert seen(service) == (4.0, 10.0)


@asynchronous
async def test_a_cache_of_no_bytes_keeps_nothing(shared_valkey: Valkey) -> None:
    async with serving(redis_url=shared_valkey.url, prefix="nocache:", cache_mib=0) as service:
        await service.post_events("u1", "1", "2")
        await service.settled()
        await service.recommend(user_id="u1")
        assert seen(service) == (2.0, 3.0)
        assert len(service.runtime.space.states.cache) == 0
        assert isinstance(service.runtime.space.states.cache, ProfileCache)
        assert np.isfinite(service.engine.jobs[-1].h).all()
