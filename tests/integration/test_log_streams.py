"""The streams on a real server: what is trimmed unread is counted, subjects are erased, servers may fail."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from service.exposures.erasure import StreamErasure
from service.exposures.exposure import shard_of
from service.exposures.recorder import Recorder, RecorderSettings
from service.metrics.service_metrics import Metrics, value_of
from service.store.records import NewEvent, Subject
from service.store.store import Store
from service.store.store_settings import StoreSettings
from service.store.streams.log_streams import GROUP, Appended, Entry, Shard
from tests.support.aio import asynchronous
from tests.support.valkey import Valkey

USER, OTHER, SESSION = Subject("user", "1"), Subject("user", "2"), Subject("session", "3")


@contextlib.asynccontextmanager
async def opened(valkey: Valkey, timeout_ms: float = 2000) -> AsyncIterator[tuple[Store, Any]]:
    """A store with a prefix of its own, and a client of the same server."""
    store = Store(StoreSettings(url=valkey.url, prefix=f"{uuid.uuid4().hex}:", write_timeout_ms=timeout_ms))
    client: Any = Redis.from_url(valkey.url)
    try:
        yield store, client
    finally:
        await client.aclose()
        await store.close()


def entry(subject: str = "u:1", n: int = 0) -> Entry:
    return ("v", "1", "s", subject, "e", str(n))


async def bodies(store: Store, client: Any, stream: Any, shards: int = 8) -> list[dict[bytes, bytes]]:
    keys = [store.streams.key(Shard(stream, n)) for n in range(shards)]
    return [fields for key in keys for _, fields in await client.xrange(key)]


@asynchronous
async def test_nothing_of_an_entry_stays_in_memory_once_it_is_written(valkey: Valkey) -> None:
    """An erasure deletes the entries of a subject from the streams, and does not know of copies."""
    subject = "".join(("u:", "ann"))
    before = sys.getrefcount(subject)
    async with opened(valkey) as (store, _):
        await store.streams.append([(Shard("exposures", 0), [entry(subject)])], cap=10)
    assert sys.getrefcount(subject) == before


# What happens to a shard: so many entries are appended, or a consumer of the sink or of another group takes so many, or
# one of the entries is deleted.
happenings = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 9)),
        st.tuples(st.sampled_from([GROUP, "other"]), st.integers(1, 9)),
        st.tuples(st.just("delete"), st.integers(0, 9)),
    ),
    max_size=25,
)


class PlainStream:
    """A capped stream in plain Python, which knows of each entry whether the sink was given it."""

    def __init__(self, cap: int) -> None:
        self.cap, self.entries, self.read = cap, list[int](), set[int]()
        self.next = 0

    def append(self, n: int) -> tuple[int, int]:
        self.entries += range(self.next, self.next + n)
        self.next += n
        gone, self.entries = self.entries[: -self.cap], self.entries[-self.cap :]
        return len(gone), len([one for one in gone if one not in self.read])

    def take(self, n: int) -> None:
        last = max(self.read, default=-1)
        self.read |= set([one for one in self.entries if one > last][:n])


async def _follows_the_reference(valkey: Valkey, cap: int, happened: Sequence[tuple[str, int]]) -> None:
    async with opened(valkey) as (store, client):
        shard, plain = Shard("exposures", 0), PlainStream(cap)
        key, ids = store.streams.key(shard), list[bytes]()
        for what, n in happened:
            if what == "append":
                (outcome,) = await store.streams.append([(shard, [entry(n=plain.next + i) for i in range(n)])], cap)
                assert outcome == Appended(*plain.append(n))
            elif what == "delete" and n < len(plain.entries):
                await client.xdel(key, (await client.xrange(key))[n][0])
                del plain.entries[n]
            elif what in (GROUP, "other"):
                with contextlib.suppress(Exception):
                    await client.xgroup_create(key, what, "0", mkstream=True)
                await client.xreadgroup(what, "c", {key: ">"}, count=n)
                if what == GROUP:
                    plain.take(n)
            ids = [fields[b"e"] for _, fields in await client.xrange(key)]
            assert ids == [str(one).encode() for one in plain.entries]
        await client.delete(key)


def test_what_is_trimmed_unread_equals_a_plain_reference(shared_valkey: Valkey) -> None:
    @settings(max_examples=12, deadline=None)
    @given(cap=st.integers(1, 12), happened=happenings)
    def check(cap: int, happened: list[tuple[str, int]]) -> None:
        asyncio.run(_follows_the_reference(shared_valkey, cap, happened))

    check()


@asynchronous
async def test_entries_come_back_byte_for_byte(shared_valkey: Valkey) -> None:
    async with opened(shared_valkey) as (store, client):
        shard, sizes = Shard("exposures", 0), (0, 1, 127, 255, 256, 65_535, 65_536)
        entries: list[Entry] = [("v", "1", "s", "u:é", "c", bytes(n % 256 for n in range(size))) for size in sizes]
        await store.streams.append([(shard, [*entries, entry(n=7)])], 100)
        back = [fields for _, fields in await client.xrange(store.streams.key(shard))]
        assert [fields[b"c"] for fields in back[:-1]] == [one[5] for one in entries]
        assert {fields[b"s"] for fields in back[:-1]} == {"u:é".encode()}
        assert back[-1] == {b"v": b"1", b"s": b"u:1", b"e": b"7"}


@asynchronous
async def test_an_erasure_takes_every_entry_of_the_subject_and_of_its_sessions_and_no_other(
    shared_valkey: Valkey,
) -> None:
    async with opened(shared_valkey) as (store, client):
        metrics = Metrics()
        # Some was written when the streams had another number of shards.
        before = Recorder(store.streams, metrics, RecorderSettings(shards=3))
        now = RecorderSettings(shards=8, cap=5000)
        recorder = Recorder(store.streams, metrics, now)
        for one in (before, recorder):
            for n in range(600 if one is recorder else 10):  # more than one call of an erasure looks at
                event = NewEvent(str(n), "view", n)
                one.happened({subject: [event] for subject in (USER, OTHER, SESSION)})
            await one.merged(SESSION, USER)
            one.shown("l", SESSION, lambda: entry("s:3"))
            await one.drain(20.0)
        assert len(await bodies(store, client, "events")) == 3 * 610 + 2
        erasure = StreamErasure(store.streams, recorder, now, lambda: 7.0)
        assert await erasure.erase([USER]) == 2 * 610 + 2 + 2
        left = await bodies(store, client, "events")
        assert {fields[b"s"] for fields in left if b"erased" not in fields} == {b"u:2"}
        tombstones = [(fields[b"s"], fields[b"erased"]) for fields in left if b"erased" in fields]
        assert sorted(tombstones) == [(b"s:3", b"7000"), (b"u:1", b"7000")]
        assert [fields[b"erased"] for fields in await bodies(store, client, "exposures")] == [b"7000", b"7000"]
        assert await erasure.erase([OTHER]) == 610


@asynchronous
async def test_a_merge_is_recorded_before_it_is_acknowledged_whatever_waits(shared_valkey: Valkey) -> None:
    async with opened(shared_valkey) as (store, client):
        metrics, now = Metrics(), RecorderSettings(queue_max=2)
        recorder = Recorder(store.streams, metrics, now)
        recorder.shown("l", SESSION, lambda: entry("s:3"))
        await recorder.drain(20.0)
        recorder.happened({subject: [NewEvent("1", "view", 1)] for subject in (SESSION, OTHER)})
        await asyncio.sleep(0)
        assert recorder.events_waiting == now.queue_max
        await recorder.merged(SESSION, USER)
        killed = Recorder(store.streams, metrics, now)  # another process erases, and the first writes no more
        assert await StreamErasure(store.streams, killed, now, lambda: 7.0).erase([USER]) == 2
        assert [fields.get(b"erased") for fields in await bodies(store, client, "exposures")] == [b"7000", b"7000"]
        # In the process that has events of the session in its queue, they go as well.
        await recorder.merged(SESSION, USER)
        await StreamErasure(store.streams, recorder, now).erase([USER])
        assert recorder.events_waiting == 1
        assert value_of(metrics.recording.events, "dropped") == 1


@asynchronous
async def test_where_nothing_was_ever_recorded_an_erasure_writes_nothing(shared_valkey: Valkey) -> None:
    async with opened(shared_valkey) as (store, client):
        off = RecorderSettings(on=False)
        recorder = Recorder(store.streams, Metrics(), off)
        recorder.shown("l", USER, entry)
        recorder.happened({USER: [NewEvent("1", "view", 1)]})
        assert await StreamErasure(store.streams, recorder, off).erase([USER]) == 0
        assert not [key async for key in client.scan_iter(match=f"{store.settings.prefix}*")]


@asynchronous
async def test_a_queued_entry_of_an_erased_subject_is_never_written(shared_valkey: Valkey) -> None:
    async with opened(shared_valkey) as (store, client):
        metrics, now = Metrics(), RecorderSettings()
        recorder = Recorder(store.streams, metrics, now)
        recorder.happened({subject: [NewEvent("1", "view", 1)] for subject in (USER, OTHER)})
        await asyncio.sleep(0)
        await StreamErasure(store.streams, recorder, now).erase([USER])
        await recorder.drain(20.0)
        names = [fields[b"s"] for fields in await bodies(store, client, "events") if b"erased" not in fields]
        assert names == [b"u:2"]
        assert value_of(metrics.recording.events, "dropped") == 1


@asynchronous
async def test_while_redis_is_away_entries_wait_and_what_does_not_fit_is_counted(valkey: Valkey) -> None:
    async with opened(valkey, timeout_ms=200) as (store, client):
        metrics = Metrics()
        recorder = Recorder(store.streams, metrics, RecorderSettings(queue_max=5, shards=2))
        valkey.kill9()
        for n in range(8):
            recorder.shown(str(n), USER, lambda n=n: entry(n=n))  # type: ignore[misc]
        await asyncio.sleep(0)
        assert not await recorder.flush()
        assert (recorder.lists_waiting, value_of(metrics.recording.lists, "dropped")) == (5, 3)
        valkey.restart()
        await recorder.drain(20.0)
        assert value_of(metrics.recording.lists, "recorded") == 5
        key = store.streams.key(Shard("exposures", shard_of("u:1", 2)))
        assert [fields[b"e"] for _, fields in await client.xrange(key)] == [str(n).encode() for n in range(5)]


@asynchronous
async def test_a_slow_server_delays_no_caller_and_what_is_left_at_the_end_counts_as_failed(valkey: Valkey) -> None:
    async with opened(valkey, timeout_ms=2_000) as (store, _):
        metrics = Metrics()
        recorder = Recorder(store.streams, metrics, RecorderSettings())
        await recorder.announce()
        valkey.sigstop()
        try:
            for n in range(3):
                recorder.shown(str(n), USER, lambda n=n: entry(n=n))  # type: ignore[misc]
            await recorder.drain(0.3)
        finally:
            valkey.sigcont()
        assert value_of(metrics.recording.lists, "failed") == 3
        assert recorder.lists_waiting == 0


@asynchronous
async def test_a_full_server_refuses_and_the_entries_follow_when_it_has_room(valkey: Valkey) -> None:
    async with opened(valkey) as (store, client):
        metrics = Metrics()
        recorder = Recorder(store.streams, metrics, RecorderSettings())
        await recorder.announce()
        await client.config_set("maxmemory", "1")
        recorder.shown("l", USER, entry)
        await asyncio.sleep(0)
        assert not await recorder.flush()
        await client.config_set("maxmemory", "0")
        assert await recorder.flush()
        assert value_of(metrics.recording.lists, "recorded") == 1


@asynchronous
async def test_an_entry_that_the_server_will_never_take_ends_as_failed_and_holds_up_no_other(
    shared_valkey: Valkey,
) -> None:
    async with opened(shared_valkey) as (store, _):
        metrics = Metrics()
        recorder = Recorder(store.streams, metrics, RecorderSettings(shards=64))
        recorder.shown("l", USER, lambda: ("v", "1", "s"))  # a field without a value
        recorder.shown("m", OTHER, lambda: entry("u:2"))
        await recorder.drain(20.0)
        assert [value_of(metrics.recording.lists, name) for name in ("recorded", "failed")] == [1, 1]


@asynchronous
async def test_a_key_of_another_type_is_replaced(shared_valkey: Valkey) -> None:
    async with opened(shared_valkey) as (store, client):
        shard = Shard("events", 0)
        await client.set(store.streams.key(shard), "strange")
        assert await store.streams.erase(shard, "u:1") == (0, [])
        assert await store.streams.append([(shard, [entry()])], 10) == [Appended(0, 0)]
        assert await client.xlen(store.streams.key(shard)) == 1
