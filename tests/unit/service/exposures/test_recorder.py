"""The recorder keeps up with what comes in, as long as the streams take it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

from service.common.errors import StoreUnavailable
from service.exposures.entry_queue import BATCH
from service.exposures.recorder import Recorder, RecorderSettings
from service.metrics.service_metrics import Metrics, value_of
from service.store.records import NewEvent, Subject
from service.store.streams.log_streams import Appended, Entry, LogStreams, Shard
from tests.support.aio import asynchronous


class Streams:
    """Streams that take everything within one turn of the event loop."""

    def __init__(self) -> None:
        self.taken = 0
        self.erased: list[tuple[str, str]] = []
        self.failing: Callable[[], None] | None = None

    async def shard_counts(self, adding: int = 0) -> set[int]:
        return {adding}

    async def append(self, batches: Sequence[tuple[Shard, Sequence[Entry]]], cap: int) -> list[Appended]:
        assert cap
        await asyncio.sleep(0)
        self.taken += sum(len(entries) for _, entries in batches)
        if self.failing is not None:
            self.failing()
            raise StoreUnavailable("no answer came")
        return [Appended(0, 0) for _ in batches]

    async def erase(self, shard: Shard, subject: str) -> tuple[int, list[bytes]]:
        self.erased.append((shard.stream, subject))
        return 1, []


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
    assert streams.taken == value_of(metrics.recording.events, "recorded") == 10_000
    assert value_of(metrics.recording.events, "dropped") == 0


@asynchronous
async def test_lists_are_made_right_behind_their_answers_and_keep_no_request_alive() -> None:
    metrics, streams, made = Metrics(), Streams(), list[int]()

    def make(n: int) -> Entry:
        made.append(n)
        return ("v", "1", "s", "u:1", "e", str(n))

    recorder = Recorder(cast(LogStreams, cast(Any, streams)), metrics, RecorderSettings())
    for n in range(BATCH + 5):
        recorder.shown(str(n), Subject("user", "1"), partial(make, n))
    assert made == []  # the answers have not left
    await asyncio.sleep(0)
    assert made == list(range(BATCH + 5))
    await recorder.drain(20.0)
    assert made == list(range(BATCH + 5))
    assert streams.taken == value_of(metrics.recording.lists, "recorded") == BATCH + 5


@asynchronous
async def test_who_is_erased_during_a_write_that_fails_is_erased_when_the_streams_are_back() -> None:
    metrics, streams = Metrics(), Streams()
    recorder = Recorder(cast(LogStreams, cast(Any, streams)), metrics, RecorderSettings())
    user = Subject("user", "1")
    recorder.happened({user: [NewEvent("1", "view", 1)]})
    await asyncio.sleep(0)
    streams.failing = lambda: recorder.forget("u:1")  # it is written, and nobody says so
    assert not await recorder.flush()
    assert (recorder.events_waiting, streams.erased) == (0, [])
    streams.failing = None
    assert await recorder.flush()
    assert streams.erased == [("events", "u:1")]
