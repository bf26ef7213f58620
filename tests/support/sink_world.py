"""A sink on a real Valkey, in this process: streams to append to, and the files that it writes."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from deploy.loop.sink.batch_writer import BatchWriter
from deploy.loop.sink.housekeeping import ErasableTopic, Housekeeping
from deploy.loop.sink.lease import Lease
from deploy.loop.sink.live_outcomes import LiveOutcomes
from deploy.loop.sink.recent_erasures import RecentErasures
from deploy.loop.sink.sink import Bounds, Sink
from model.online.log_folder import LogFolder
from service.exposures.exposure import shard_of
from service.metrics.service_metrics import value_of
from service.metrics.sink_metrics import SinkMetrics
from service.store.erasure_list import ErasureList
from service.store.streams.log_streams import GROUP, Entry, LogStreams, Shard
from service.store.streams.stream_group import StreamGroup
from tests.support.valkey import Valkey

SHARDS = 2
HOUR_MS = 3_600_000
NOW_MS = int(time.time() * 1000)
SHARD = Shard("exposures", shard_of("u:1", SHARDS))


def shown(list_id: str, time_ms: int = NOW_MS, subject: str = "u:1") -> Entry:
    body = b'{"list_id": "%s", "time_ms": %d, "items": ["1"]}' % (list_id.encode(), time_ms)
    return ("v", "1", "s", subject, "e", body)


class World:
    """A server with a prefix of its own, a folder, and sinks on them in this process."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.prefix = url, f"{uuid.uuid4().hex}:"
        self.log, self.metrics = LogFolder(folder), SinkMetrics(CollectorRegistry())
        self.erased = RecentErasures()
        self.client: Any = Redis.from_url(url)
        self.group = self.new_group("here/1")
        self.streams = LogStreams(self.group.link, prefix=self.prefix, timeout_s=5.0, ttl_s=60)
        self.listed = ErasureList(self.group.link, prefix=self.prefix, timeout_s=5.0)

    def new_group(self, owner: str) -> StreamGroup:
        return StreamGroup(self.url, prefix=self.prefix, timeout_s=5.0, owner=owner)

    async def append(self, *entries: Entry, shard: Shard = SHARD, cap: int = 1000) -> None:
        await self.streams.shard_counts(adding=SHARDS)
        (outcome,) = await self.streams.append([(shard, entries)], cap)
        assert not isinstance(outcome, Exception)

    def sink(
        self,
        group: StreamGroup | None = None,
        live: LiveOutcomes | None = None,
        topic: Any = None,
        **bounds: Any,
    ) -> Sink:
        group = group or self.group
        writer = BatchWriter(self.log, self.metrics, self.erased)
        settled = Bounds(**{"seconds": 0.02, "stop_s": 0.1, **bounds})
        return Sink(group, Lease(group, 30.0), writer, self.metrics, settled, in_lane=in_thread, live=live, topic=topic)

    def house(self, days: int = 0, topic: ErasableTopic | None = None, later_s: float = 0.0) -> Housekeeping:
        """Keeps house as if it were so much later."""
        return Housekeeping(
            self.log, self.metrics, self.erased, in_lane=in_thread, may_act=lambda: True, retention_days=days,
            topic=topic, listed=self.listed, wall_clock=lambda: NOW_MS / 1000.0 + later_s,
        )  # fmt: skip

    async def once(self, **bounds: Any) -> None:
        await self.sink(once=True, **bounds).run(asyncio.Event())

    def lists(self) -> list[str]:
        """Ids in the files as often as they are there."""
        return sorted(self.log.read_all("exposures", ["list_id"])["list_id"].to_list())

    async def pending(self) -> int:
        return int((await self.client.xpending(self.prefix + f"exposures:{SHARD.number}", GROUP))["pending"])

    def counted(self, outcome: str) -> float:
        return value_of(self.metrics.entries, "exposures", outcome)


def in_thread(work: Callable[[], Any]) -> Awaitable[Any]:
    return asyncio.to_thread(work)


@contextlib.asynccontextmanager
async def world(valkey: Valkey, folder: Path) -> AsyncIterator[World]:
    one = World(valkey.url, folder)
    try:
        yield one
    finally:
        await one.group.close()
        await one.client.aclose()


@contextlib.asynccontextmanager
async def running(sink: Sink) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(sink.run(stop))
    try:
        yield
    finally:
        stop.set()
        await task


async def until(done: Callable[[], Any], within_s: float = 30.0) -> None:
    deadline = time.monotonic() + within_s
    while not done():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
