"""The recorder keeps up with what comes in, as long as the streams take it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

from service.common.metrics import Metrics, value_of
from service.exposures.recorder import Recorder, RecorderSettings
from service.store.log_streams import Appended, Entry, LogStreams, Shard
from service.store.records import NewEvent, Subject
from tests.support.aio import asynchronous


class Streams:
    """Streams that take everything within one turn of the event loop."""

    def __init__(self) -> None:
        self.taken = 0

    async def shard_counts(self, adding: int = 0) -> set[int]:
        return {adding}

    async def append(self, batches: Sequence[tuple[Shard, Sequence[Entry]]], cap: int) -> list[Appended]:
        assert cap
        await asyncio.sleep(0)
        self.taken += sum(len(entries) for _, entries in batches)
        return [Appended(0, 0) for _ in batches]


@asynchronous
async def test_large_bodies_one_after_the_other_are_all_recorded() -> None:
    metrics, streams = Metrics(), Streams()
    recorder = Recorder(cast(LogStreams, cast(Any, streams)), metrics, RecorderSettings(queue_max=4096))
    running = asyncio.create_task(recorder.run())
    for body in range(10):
        recorder.happened({Subject("user", str(body)): [NewEvent(str(n), "view", n) for n in range(1000)]})
        for _ in range(50):  # turns of the event loop, which take no time worth speaking of
            await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait([running])
    await recorder.drain(20.0)
    assert streams.taken == value_of(metrics.recorded_events, "recorded") == 10_000
    assert value_of(metrics.recorded_events, "dropped") == 0
