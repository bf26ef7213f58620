"""Everything that the service asks of a Redis Cluster, through fail-overs and moves of slots of real servers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from loadtests.harness.redis_cluster import RedisCluster
from service.access.keys import Caller
from service.access.rate_limits import Rates, rate_of
from service.common.errors import StoreUnavailable
from service.common.request_errors import TooManyRequests
from service.metrics.service_metrics import Metrics
from service.store.records import NewEvent, Subject
from service.store.store import Store
from service.store.store_settings import StoreSettings
from service.store.streams.log_streams import Entry, Shard
from service.store.streams.stream_group import BEGINNING, NEW, StreamGroup
from tests.support.aio import asynchronous, eventually

pytestmark = pytest.mark.fleet

T = 1_700_000_000_000
WITHIN_S = 30.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    """Three primaries with a replica each; every test uses keys of its own."""
    with RedisCluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@contextlib.asynccontextmanager
async def opened(cluster: RedisCluster, **settings: Any) -> AsyncIterator[Store]:
    store = await Store.connect(
        StoreSettings(url=cluster.url, **{"read_timeout_ms": 5000, "write_timeout_ms": 5000, **settings})
    )
    try:
        yield store
    finally:
        await store.close()


async def failed_over(cluster: RedisCluster, key: str) -> None:
    """Has the replica of the shard of a key take over."""
    old = await asyncio.to_thread(cluster.primary_of, key)
    await asyncio.to_thread(cluster.fail_over, old)

    async def replaced() -> bool:
        return await asyncio.to_thread(cluster.primary_of, key) is not old and await asyncio.to_thread(cluster.well)

    await eventually(replaced, WITHIN_S)


async def works(attempt: Callable[[], Awaitable[Any]]) -> Any:
    """The result of an attempt that may fail while a fail-over is noticed."""
    found: list[Any] = []

    async def tried() -> bool:
        with contextlib.suppress(StoreUnavailable):
            found.append(await attempt())
        return bool(found)

    await eventually(tried, WITHIN_S)
    return found[0]


def click(name: str, n: int = 0) -> NewEvent:
    return NewEvent("i", "click", T + n, event_id=name)


@pytest.mark.parametrize("durability", ["memory", "aof", "replica"])
@asynchronous
async def test_events_are_there_after_their_primary_was_replaced(cluster: RedisCluster, durability: str) -> None:
    """A promoted replica knows none of the scripts, and every connection to the old primary is still open."""
    people = [Subject("user", f"{durability}{n}") for n in range(24)]
    async with opened(cluster, durability=durability, durability_timeout_ms=5000) as store:
        before = await store.append_many([(one, [click("before")]) for one in people])
        assert [one.accepted for one in before] == [1] * 24
        await failed_over(cluster, store._calls.keys(people[0], "events")[0])
        assert len(await works(lambda: store.append_many([(one, [click("after", 1)]) for one in people]))) == 24
        for one in people:
            record = await store.read(one, "m")
            assert [event.event_id for event in record.events] == ["before", "after"]


@asynchronous
async def test_a_write_that_too_few_copies_have_is_refused_on_its_shard_alone(cluster: RedisCluster) -> None:
    async with opened(cluster, durability="replica", durability_timeout_ms=300) as store:
        people = [Subject("user", f"few{n}") for n in range(24)]
        keys = {one: store._calls.keys(one, "events")[0] for one in people}
        primary = await asyncio.to_thread(cluster.primary_of, keys[people[0]])
        replica = await asyncio.to_thread(cluster.replica_of, primary)
        here = [one for one in people if cluster.primary_of(keys[one]) is primary]
        elsewhere = [one for one in people if one not in here]
        await store.append_many([(one, [click("before")]) for one in people])
        replica.freeze()
        try:
            with pytest.raises(StoreUnavailable, match="0 of 1 copies") as refused:
                await store.append_many([(here[0], [click("x")]), (elsewhere[0], [click("x")])])
            assert refused.value.cause == "too_few_replicas"
            assert (await store.append(elsewhere[1], [click("x")])).accepted == 1
        finally:
            replica.thaw()
        assert (await works(lambda: store.append(here[0], [click("x")]))).duplicates == 1  # repeated by its sender


@asynchronous
async def test_writes_that_wait_for_copies_leave_room_for_reads(cluster: RedisCluster) -> None:
    async with opened(cluster, durability="replica", durability_timeout_ms=1500) as store:
        who = Subject("user", "room")
        await store.append(who, [click("x")])
        primary = await asyncio.to_thread(cluster.primary_of, store._calls.keys(who, "events")[0])
        replica = await asyncio.to_thread(cluster.replica_of, primary)
        replica.freeze()
        try:
            writes = [asyncio.create_task(store.append(who, [click(f"x{n}", n)])) for n in range(40)]
            await asyncio.sleep(0)
            assert (await store.read(who, "m", 1.0)).events
            assert not any(one.done() for one in writes)
        finally:
            replica.thaw()
        await asyncio.wait(writes)
        for one in writes:
            one.exception()


@asynchronous
async def test_a_write_whose_primary_became_a_replica_is_not_acknowledged(cluster: RedisCluster) -> None:
    """It waits for more copies than there are, and its node is demoted meanwhile."""
    settings = StoreSettings(
        url=cluster.url, write_timeout_ms=5000, durability="replica", replicas=2, durability_timeout_ms=2000
    )
    store, who = Store(settings), Subject("user", "demoted")  # not connected: that would wait for the copies too
    try:
        await store.ping()
        writing = asyncio.create_task(store.append(who, [click("x")]))
        await failed_over(cluster, store._calls.keys(who, "events")[0])
        with pytest.raises(StoreUnavailable) as refused:
            await writing
        assert refused.value.cause in {"read_only", "too_few_replicas"}  # some servers wait to the end
    finally:
        await store.close()


@asynchronous
async def test_rates_count_on(cluster: RedisCluster) -> None:
    async with opened(cluster) as store:
        rates = Rates(rate_of("5/hour"), store, Metrics(CollectorRegistry()))
        for _ in range(3):
            await rates.take(Caller("shop", may_users=False))
        (key,) = [name for name in _all_keys(cluster) if "rate:" in name and "shop" in name]
        await failed_over(cluster, key)
        await store.ping()
        await works(lambda: store._link.refresh_slots(timeout_s=5.0))
        for _ in range(2):
            await rates.take(Caller("shop", may_users=False))
        with pytest.raises(TooManyRequests):
            await rates.take(Caller("shop", may_users=False))


def _all_keys(cluster: RedisCluster) -> set[str]:
    return {key for server in cluster.servers for key in server.ask(("KEYS", "*"))}


@asynchronous
async def test_erasures_hold_and_are_told(cluster: RedisCluster) -> None:
    async with opened(cluster) as store, opened(cluster) as other:
        who, later = Subject("user", "erased"), Subject("user", "erased later")
        told: set[Subject | None] = set()

        async def listen() -> None:
            while True:  # a subscription ends when other nodes become primaries
                with contextlib.suppress(StoreUnavailable):
                    async for one in other.erasures():
                        told.add(one)

        listening = asyncio.create_task(listen())
        await store.append(who, [click("x")])
        await store.append(later, [click("x")])

        async def subscribed() -> bool:
            return None in told

        await eventually(subscribed, WITHIN_S)
        assert await store.erase(who) >= 2
        await failed_over(cluster, store._calls.keys(who, "events")[0])
        assert not (await works(lambda: store.read(who, "m"))).events

        async def heard() -> bool:
            await works(lambda: store.append(later, [click("x")]))
            await works(lambda: store.erase(later))
            return {who, later} <= told

        await eventually(heard, WITHIN_S)
        listening.cancel()
        await asyncio.wait((listening,))


@asynchronous
async def test_experiments_and_other_shared_values_are_kept_and_told(cluster: RedisCluster) -> None:
    async with opened(cluster) as store, opened(cluster) as other:
        key = store._ops_key("experiments")
        await store.write_shared("experiments", 1, T, b"first", audit=b"{}")
        await store.add_counts("counts:run", {"a": 2}, 600)
        heard: list[bytes] = []

        async def listen() -> None:
            while True:
                with contextlib.suppress(StoreUnavailable):
                    async with contextlib.aclosing(other.shared_changes()) as changes:
                        heard.append(await anext(changes))

        listening = asyncio.create_task(listen())
        await failed_over(cluster, key)
        _, kept = await works(lambda: store.read_shared("experiments"))
        assert kept == (1, T, b"first")
        version = 1

        async def changed() -> bool:
            nonlocal version
            version += 1
            await works(lambda: store.write_shared("experiments", version, T + version, b"next", audit=b"{}"))
            return bool(heard)

        await eventually(changed, WITHIN_S)
        await works(lambda: store.add_counts("counts:run", {"a": 1}, 600))
        assert await store.read_counts("counts:run") == {"a": 3}
        assert (await works(lambda: other.read_shared("experiments")))[1][2] == b"next"
        listening.cancel()
        await asyncio.wait((listening,))


@asynchronous
async def test_streams_of_exposures_and_their_reader_go_on(cluster: RedisCluster) -> None:
    shards = [Shard("exposures", n) for n in range(8)]
    entry: Entry = ("v", "1", "s", "u:1", "e", "{}")
    async with opened(cluster) as store:
        group = StreamGroup(cluster.url, prefix=store.settings.prefix, timeout_s=5.0, owner="reader")
        try:
            await store.streams.append([(one, [entry]) for one in shards], cap=100)
            first = await group.read(dict.fromkeys(shards, NEW), 10)
            assert sum(len(page) for page in first.values() if not isinstance(page, StoreUnavailable)) == 8
            await failed_over(cluster, store.streams.key(shards[0]))
            pending = await works(lambda: group.read(dict.fromkeys(shards, BEGINNING), 10))

            async def all_pages() -> bool:  # a page that a fail-over took is asked for again
                nonlocal pending
                pending = await works(lambda: group.read(dict.fromkeys(shards, BEGINNING), 10))
                return not any(isinstance(page, StoreUnavailable) for page in pending.values())

            await eventually(all_pages, WITHIN_S)
            assert {shard: len(page) for shard, page in pending.items()} == dict.fromkeys(shards, 1)
            await works(lambda: group.acknowledge({shard: [page[0].id] for shard, page in pending.items()}))
            appended = await works(lambda: store.streams.append([(one, [entry]) for one in shards], cap=100))
            assert not [one for one in appended if isinstance(one, StoreUnavailable)]
        finally:
            await group.close()


@asynchronous
async def test_a_user_can_be_read_and_written_while_the_slot_moves(cluster: RedisCluster) -> None:
    """MOVED, ASK and TRYAGAIN, step by step."""
    async with opened(cluster) as store:
        who = Subject("user", "moving")
        key = store._calls.keys(who, "events")[0]
        source = await asyncio.to_thread(cluster.primary_of, key)
        target = next(one for one in cluster.servers if one is not source and cluster.slots_of(one))
        slot = int(source.ask(("CLUSTER", "KEYSLOT", key)))
        await store.append(who, [click("0")])
        target.ask(("CLUSTER", "SETSLOT", slot, "IMPORTING", cluster.id_of(source)))
        source.ask(("CLUSTER", "SETSLOT", slot, "MIGRATING", cluster.id_of(target)))
        newcomer = Subject("user", "moving")  # the same slot, and keys that are nowhere yet
        with contextlib.suppress(StoreUnavailable):  # some of the keys exist, others do not: told to try again
            await store.append(newcomer, [click("1", 1)])
        await asyncio.to_thread(cluster.move, [slot], source, target)
        assert (await works(lambda: store.append(who, [click("2", 2)]))).accepted == 1
        names = [event.event_id for event in (await store.read(who, "m")).events]
        assert names in (["0", "2"], ["0", "1", "2"])
        await asyncio.to_thread(cluster.move, [slot], target, source)
        assert len((await works(lambda: store.read(who, "m"))).events) == len(names)


@asynchronous
async def test_a_node_that_is_added_is_found_and_taught(cluster: RedisCluster) -> None:
    """It has none of the scripts, and is in no URL."""
    async with opened(cluster, durability="replica", durability_timeout_ms=5000) as store:
        who = Subject("user", "resharded")
        key = store._calls.keys(who, "events")[0]
        await store.append(who, [click("0")])
        source = await asyncio.to_thread(cluster.primary_of, key)
        new = await asyncio.to_thread(cluster.add)
        slot = int(source.ask(("CLUSTER", "KEYSLOT", key)))
        await asyncio.to_thread(cluster.move, [slot], source, new)
        assert (await works(lambda: store.append(who, [click("1", 1)]))).accepted == 1
        assert [event.event_id for event in (await store.read(who, "m")).events] == ["0", "1"]
