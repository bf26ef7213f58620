"""Shows how much waits in the stream between the roles."""

from __future__ import annotations

import asyncio

from service.common import logs
from service.common.errors import StoreUnavailable
from service.metrics.encode_metrics import EncodeMetrics
from service.store.streams.encode_stream import EncodeStream

log = logs.get(__name__)


async def watch_backlog(stream: EncodeStream, metrics: EncodeMetrics, shards: int, *, interval_s: float = 2.0) -> None:
    """Shows how much waits in the stream, until cancelled. While Redis is unavailable the figures stay as they were."""
    while True:
        try:
            counts = await stream.shard_counts()
            backlog = await stream.backlog(range(max(counts | {shards})))
            metrics.lag.set(backlog.entries)
            metrics.lag_s.set(backlog.age_s)
        except StoreUnavailable as error:
            log.debug("backlog_unknown", reason=error.reason)
        await asyncio.sleep(interval_s)
