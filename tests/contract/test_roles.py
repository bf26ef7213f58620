"""The roles `answer` and `encode`, with their real parts around fake engines and one Redis between them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis

from service.access import rate_limits
from service.history import state_blob
from service.store import lua_scripts
from service.store.records import Subject
from service.store.redis_rights import acl_line, commands_of
from service.store.streams import encode_scripts
from service.store.streams.encode_stream import GROUP, EncodeStream, Handed
from tests.support.aio import asynchronous, eventually
from tests.support.fakes import LAYOUT, FakeEngine
from tests.support.serving import Service, serving
from tests.support.shops import shops
from tests.support.traces import traced
from tests.support.valkey import Valkey

ROOT = Path(__file__).resolve().parents[2]
ENCODER: dict[str, Any] = {"role": "encode", "encode_poll_ms": 2.0, "encode_patience_s": 0.2}


@asynccontextmanager
async def role(
    valkey: Valkey, prefix: str, name: str, engine: FakeEngine | None = None, **settings: Any
) -> AsyncIterator[Service]:
    chosen = {**(ENCODER if name == "encode" else {"role": name}), **settings}
    async with serving(engine, redis_url=valkey.url, prefix=prefix, operator=True, **chosen) as service:
        yield service


def stream(service: Service) -> EncodeStream:
    return service.runtime.space.store.encoding


async def waiting(service: Service) -> int:
    return (await stream(service).backlog(range(8))).entries


async def encoded(service: Service) -> None:
    """Waits until nothing waits in the stream."""
    await service.settled()

    async def empty() -> bool:
        return not await waiting(service)

    await eventually(empty, within_s=20.0)


def figure(service: Service, name: str, **labels: str) -> float:
    text = service.runtime.metrics.render().decode()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return sample.value
    return 0.0


def uses(service: Service, outcome: str) -> float:
    return figure(service, "gpt4rec_state_cache_total", level="state", outcome=outcome)


def runs(service: Service) -> int:
    """Histories that this process has encoded."""
    return sum(bool(len(job.events)) for job in service.engine.encoded)


async def stored_state(service: Service, user: str) -> state_blob.VersionedState | None:
    space = service.runtime.space
    record = await space.store.read(Subject("user", user), space.model.encoder_version.name, 2.0)
    state = state_blob.unpack(record.blob, LAYOUT)
    return state if state is not None and state.version == record.version else None


@asynchronous
async def test_the_answering_process_uses_the_states_of_the_encoding_one(shared_valkey: Valkey) -> None:
    async with (
        role(shared_valkey, "roles-1:", "answer") as one,
        role(shared_valkey, "roles-1:", "answer") as other,
        role(shared_valkey, "roles-1:", "encode") as encoder,
    ):
        for n in range(3):  # each event makes both replicas' copies old
            await one.post_events("ann", str(n), start_ms=1_700_000_000_000 + n * 1000)
            await encoded(one)
            for replica in (one, other):
                assert (await replica.recommend(user_id="ann", k=5))["rung"] == "full"
        assert [runs(replica) for replica in (one, other, encoder)] == [0, 0, 3]
        assert uses(one, "hit") == uses(other, "hit") == 3
        assert figure(one, "gpt4rec_encode_handed_total", outcome="handed") == 3
        assert figure(encoder, "gpt4rec_encode_entries_total", outcome="encoded") == 3
        assert figure(encoder, "gpt4rec_encode_delay_seconds_count") == 3


@asynchronous
async def test_without_encoders_every_list_follows_the_last_event(shared_valkey: Valkey) -> None:
    """Read-your-writes: what nobody has encoded yet, the request encodes, on whichever replica it comes."""
    async with (
        role(shared_valkey, "roles-2:", "answer") as one,
        role(shared_valkey, "roles-2:", "answer") as other,
    ):
        for n in range(1, 7):
            await one.post_events("bob", str(n), start_ms=1_700_000_000_000 + n * 1000)
            for replica in (one, other):
                answer = await replica.recommend(user_id="bob", k=40)
                assert answer["rung"] == "full"
                assert replica.engine.jobs[-1].h[0] == n
                assert str(n) not in [item["item_id"] for item in answer["items"]]
        await one.settled()
        assert 1 <= await waiting(one) <= 6  # those that waited together are one


@asynchronous
async def test_what_waited_is_encoded_when_an_encoder_comes(shared_valkey: Valkey) -> None:
    async with role(shared_valkey, "roles-3:", "answer") as answer:
        for user in range(100):
            await answer.post_events(f"u{user}", "1", "2", "3")
        await answer.settled()
        assert await waiting(answer) == 100

        async def seen() -> bool:
            return figure(answer, "gpt4rec_encode_lag_entries") == 100

        await eventually(seen, within_s=20.0)
        async with role(shared_valkey, "roles-3:", "encode"):
            await encoded(answer)
        states = [await stored_state(answer, f"u{user}") for user in range(100)]
        assert all(state is not None and state.h[0] == 3 for state in states)
        async with Redis.from_url(shared_valkey.url) as redis:
            for shard in range(8):  # who has drained has left the group
                assert not await redis.xinfo_consumers(stream(answer).key(shard), GROUP)


@asynchronous
async def test_what_a_dead_encoder_held_is_taken_over(shared_valkey: Valkey) -> None:
    async with role(shared_valkey, "roles-4:", "answer") as answer:
        for user in range(20):
            await answer.post_events(f"u{user}", "1", "2")
        await answer.settled()
        taken = await stream(answer).read(range(8), "dead", 100)
        assert len(taken) == 20
        async with role(shared_valkey, "roles-4:", "encode") as encoder:
            await encoded(answer)
            assert figure(encoder, "gpt4rec_encode_entries_total", outcome="taken_over") == 20
        assert all([await stored_state(answer, f"u{user}") for user in range(20)])


@asynchronous
async def test_several_encoders_share_the_work(shared_valkey: Valkey) -> None:
    async with (
        role(shared_valkey, "roles-5:", "answer") as answer,
        role(shared_valkey, "roles-5:", "encode", encode_batch_max=8) as one,
        role(shared_valkey, "roles-5:", "encode", encode_batch_max=8) as other,
    ):
        one.engine.encode_go.clear()  # it holds what it took, and no more
        for user in range(100):
            await answer.post_events(f"u{user}", "1")
        await answer.settled()

        async def done() -> bool:
            return await waiting(answer) <= 16

        await eventually(done, within_s=20.0)
        one.engine.encode_go.set()
        await encoded(answer)
        assert all([await stored_state(answer, f"u{user}") for user in range(100)])
        assert figure(other, "gpt4rec_encode_entries_total", outcome="encoded") >= 84


@asynchronous
async def test_an_erased_user_leaves_the_backlog_and_is_never_encoded(shared_valkey: Valkey) -> None:
    async with role(shared_valkey, "roles-6:", "answer") as answer:
        await answer.post_events("gone", "1", "2")
        await answer.post_events("stays", "1", "2")
        await answer.settled()
        held = await stream(answer).read(range(8), "slow", 100)  # an encoder was given both before the erasure
        erased = await answer.client.delete("/users/gone")
        assert erased.status_code == 200
        assert await waiting(answer) == 1
        async with role(shared_valkey, "roles-6:", "encode") as encoder:
            await encoded(answer)
            assert len(held) == 2
            assert runs(encoder) == 1
        async with Redis.from_url(shared_valkey.url) as redis:
            assert not [key async for key in redis.scan_iter(match="roles-6:*gone*")]
            pending = [await redis.xpending(stream(answer).key(shard), GROUP) for shard in range(8)]
        assert sum(one["pending"] for one in pending) == 0
        assert await stored_state(answer, "stays")


@asynchronous
async def test_a_user_erased_while_it_is_encoded_is_not_made_anew(shared_valkey: Valkey) -> None:
    async with (
        role(shared_valkey, "roles-7:", "answer") as answer,
        role(shared_valkey, "roles-7:", "encode") as encoder,
    ):
        encoder.engine.encode_go.clear()
        await answer.post_events("gone", "1", "2")

        async def being_encoded() -> bool:
            return runs(encoder) == 1

        await eventually(being_encoded, within_s=20.0)
        assert (await answer.client.delete("/users/gone")).status_code == 200
        encoder.engine.encode_go.set()
        await encoded(answer)
        async with Redis.from_url(shared_valkey.url) as redis:
            assert not [key async for key in redis.scan_iter(match="roles-7:*gone*")]


@asynchronous
async def test_impressions_are_not_handed_over_and_features_only_where_the_encoder_reads_them(
    shared_valkey: Valkey,
) -> None:
    async with role(shared_valkey, "roles-8:", "answer") as answer:
        events = [{"user_id": "eve", "item_id": "1", "type": "impression", "timestamp": 1_700_000_000_000}]
        assert (await answer.client.post("/events", json={"events": events})).status_code == 200
        put = await answer.client.put("/users/eve/features", json={"features": {"age": "old"}})
        assert put.status_code == 200
        await answer.settled()
        assert await waiting(answer) == 0


@asynchronous
async def test_the_encoding_role_has_no_route_of_frontends(shared_valkey: Valkey) -> None:
    async with role(shared_valkey, "roles-9:", "encode") as encoder:
        for path in ("/healthz", "/readyz", "/version", "/metrics", "/ops/status"):
            assert (await encoder.client.get(path)).status_code == 200, path
            assert (await encoder.client.get(f"/v1{path}")).status_code == 200, path
        for path in ("/recommend", "/events", "/sessions/merge"):
            assert (await encoder.client.post(path, json={})).status_code == 404, path
        assert (await encoder.client.get("/users/ann")).status_code == 404


@asynchronous
async def test_entries_of_another_release_are_left_to_it(shared_valkey: Valkey) -> None:
    async with role(shared_valkey, "roles-10:", "encode") as encoder:
        async with Redis.from_url(shared_valkey.url) as redis:
            await redis.xadd(stream(encoder).key(3), {"v": "2", "s": "{u:ann}", "z": "?"})

            async def seen() -> bool:
                return figure(encoder, "gpt4rec_encode_entries_total", outcome="unreadable") >= 1

            await eventually(seen, within_s=20.0)
        assert await waiting(encoder) == 1


@asynchronous
async def test_a_smaller_number_of_shards_leaves_nothing_behind(shared_valkey: Valkey) -> None:
    async with role(shared_valkey, "roles-11:", "answer", encode_shards=16) as answer:
        for user in range(64):
            await answer.post_events(f"u{user}", "1")
        await answer.settled()
        assert (await stream(answer).backlog(range(8, 16))).entries > 0
        async with role(shared_valkey, "roles-11:", "encode", encode_shards=2):

            async def empty() -> bool:
                return not (await stream(answer).backlog(range(16))).entries

            await eventually(empty, within_s=20.0)


@asynchronous
async def test_a_full_stream_keeps_the_newest_and_counts_what_it_lost(shared_valkey: Valkey) -> None:
    async with role(shared_valkey, "roles-12:", "answer", encode_shards=1, encode_cap=10) as answer:
        for user in range(25):
            await answer.post_events(f"u{user}", "1")
        await answer.settled()
        assert await waiting(answer) == 10
        assert figure(answer, "gpt4rec_encode_handed_total", outcome="trimmed") == 15
        for user in (0, 24):
            assert (await answer.recommend(user_id=f"u{user}", k=5))["rung"] == "full"


@asynchronous
async def test_a_failing_encoder_is_tried_again_and_loses_nothing(shared_valkey: Valkey) -> None:
    engine = FakeEngine()
    async with (
        role(shared_valkey, "roles-13:", "answer") as answer,
        role(shared_valkey, "roles-13:", "encode", engine) as encoder,
    ):
        await answer.post_events("kim", "1")
        await encoded(answer)
        engine.fail_states = True  # what has a state cannot be extended
        await answer.post_events("kim", "2", start_ms=1_700_000_009_000)

        async def failed() -> bool:
            return figure(encoder, "gpt4rec_encode_entries_total", outcome="failed") >= 2

        await eventually(failed, within_s=20.0)
        assert await waiting(answer) == 1
        engine.fail_states = False
        await encoded(answer)
        state = await stored_state(answer, "kim")
        assert state is not None
        assert state.h[0] == 2


@asynchronous
async def test_a_log_that_cannot_be_read_does_not_hold_the_others_up(shared_valkey: Valkey) -> None:
    async with role(shared_valkey, "roles-19:", "answer") as answer:
        for user in range(20):
            await answer.post_events(f"u{user}", "1")
        await answer.settled()
        async with Redis.from_url(shared_valkey.url) as redis:
            await redis.zadd("roles-19:{u:u7}:events", {"not of this service": 1.0})
        async with role(shared_valkey, "roles-19:", "encode") as encoder:

            async def the_others_are_done() -> bool:
                return await waiting(answer) == 1

            await eventually(the_others_are_done, within_s=20.0)
            assert figure(encoder, "gpt4rec_encode_entries_total", outcome="encoded") == 19
            assert figure(encoder, "gpt4rec_encode_entries_total", outcome="failed") >= 1


@asynchronous
async def test_a_process_that_does_all_and_one_that_encodes_work_side_by_side(shared_valkey: Valkey) -> None:
    """A rolling change of roles: nothing that one of them has to encode waits for the other."""
    async with (
        role(shared_valkey, "roles-14:", "all") as before,
        role(shared_valkey, "roles-14:", "answer") as after,
        role(shared_valkey, "roles-14:", "encode"),
    ):
        for n in range(6):
            await (before, after)[n % 2].post_events("lee", str(n), start_ms=1_700_000_000_000 + n * 1000)
        await before.settled()
        await encoded(after)
        assert (await stored_state(after, "lee")) is not None
        for replica in (before, after):
            await replica.recommend(user_id="lee", k=5)
            assert replica.engine.jobs[-1].h[0] == 6


@asynchronous
async def test_an_entry_says_who_and_which_version_and_nothing_else(shared_valkey: Valkey) -> None:
    async with role(shared_valkey, "roles-15:", "answer", hash_user_ids="a-key-of-more-than-sixteen-chars") as answer:
        await answer.post_events("ann", "17")
        await answer.settled()
        (taken,) = await stream(answer).read(range(8), "me", 10)
        assert taken.handed is not None
        assert "ann" not in taken.handed.subject.id
        entry = taken.handed.entry()
        assert entry[::2] == ("v", "s", "l")
        assert len(taken.handed.version) == 16
        traced = Handed(taken.handed.subject, "x", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        await stream(answer).hand_over([traced], shards=8, cap=10)
        (again,) = await stream(answer).read(range(8), "me", 10)
        assert again.handed == traced


@asynchronous
async def test_the_documents_name_the_rights_of_the_role(shared_valkey: Valkey) -> None:
    """And with these rights it works."""
    more = commands_of(encode_scripts.ENCODES) - commands_of(lua_scripts.ALL)
    named = " ".join(f"+{name.lower()}" for name in sorted(more))
    assert f"`{named}`" in (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    line = acl_line("encoder", "pw", "roles-16:", (*rate_limits.SCRIPTS, *encode_scripts.ENCODES))
    async with Redis.from_url(shared_valkey.url) as redis:
        await cast("Awaitable[Any]", redis.execute_command(*line.split()))  # type: ignore[no-untyped-call]
    url = f"{shared_valkey.url}{'&' if '?' in shared_valkey.url else '?'}username=encoder&password=pw"
    async with role(shared_valkey, "roles-16:", "answer") as answer:
        await answer.post_events("ann", "1")
        await answer.settled()
        async with serving(redis_url=url, prefix="roles-16:", **ENCODER) as encoder:
            await encoded(answer)
            ready = (await encoder.client.get("/readyz")).json()
            assert ready["checks"]["redis"], ready
        assert await stored_state(answer, "ann")


@asynchronous
async def test_a_trace_goes_on_in_the_process_that_encodes(shared_valkey: Valkey) -> None:
    caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with traced(share=0.0) as spans:
        async with (
            role(shared_valkey, "roles-17:", "answer") as answer,
            role(shared_valkey, "roles-17:", "encode"),
        ):
            events = [{"user_id": "ann", "item_id": "1", "type": "view", "timestamp": 1_700_000_000_000}]
            headers = {"traceparent": caller, "tracestate": "shop=1"}
            posted = await answer.client.post("/events", json={"events": events}, headers=headers)
            assert posted.status_code == 200
            await encoded(answer)
            await spans.reach(5)
    assert spans.names() == ["POST /events", "encode", "encode behind events", "queue", "store"]
    found = {span.name: span for span in spans.all()}
    assert {(span.trace_id, span.tracestate) for span in found.values()} == {(caller.split("-")[1], "shop=1")}
    assert found["encode behind events"].parent == found["POST /events"].span_id
    assert found["encode"].parent == found["queue"].parent == found["encode behind events"].span_id


@asynchronous
async def test_each_space_has_a_stream_of_its_own(shared_valkey: Valkey, tmp_path: Path) -> None:
    spaces: dict[str, dict[str, Any]] = {"shoes": {}, "books": {}}
    named = {"redis_prefix": "roles-18:", "ops_tokens": "tester:test-token"}
    for folder in ("answer", "encode"):
        (tmp_path / folder).mkdir()
    async with (
        shops(tmp_path / "answer", shared_valkey.url, spaces, role="answer", **named) as answer,
        shops(tmp_path / "encode", shared_valkey.url, spaces, **ENCODER, **named) as encoder,
    ):
        event = {"user_id": "ann", "item_id": "1", "type": "view", "timestamp": 1_700_000_000_000}
        posted = await answer.client.post("/spaces/shoes/events", json={"events": [event]})
        assert posted.status_code == 200, posted.text
        shoes = encoder.runtime.spaces["shoes"]

        async def done() -> bool:
            name = 'gpt4rec_encode_entries_total{outcome="encoded",space="shoes"} 1.0'
            return name in (await encoder.client.get("/metrics")).text

        await eventually(done, within_s=20.0)
        record = await shoes.space.store.read(Subject("user", "ann"), "fake-1", 2.0)
        assert record.blob is not None
        assert (await encoder.client.post("/spaces/shoes/events", json={})).status_code == 404
        assert (await encoder.client.get("/spaces/shoes/readyz")).status_code == 200
        other = await encoder.runtime.spaces["books"].space.store.read(Subject("user", "ann"), "fake-1", 2.0)
        assert not other.version
