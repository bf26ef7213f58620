"""Subjects are handed over once each, in the newest version, whatever Redis does meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import cast

from prometheus_client import CollectorRegistry

from service.common.deadline import Clock
from service.common.errors import StoreUnavailable
from service.history.handover import Handover
from service.metrics.encode_metrics import EncodeMetrics
from service.metrics.service_metrics import value_of
from service.store.records import Subject
from service.store.streams.encode_stream import EncodeStream, Handed
from tests.support.aio import asynchronous
from tests.support.clock import FakeClock

ANN, BOB, EVE = (Subject("user", name) for name in ("ann", "bob", "eve"))


class Stream:
    """Keeps what it is given, in order; fails as often as it is told, holds while it is told."""

    def __init__(self) -> None:
        self.entries: list[tuple[Subject, str]] = []
        self.announced: list[int] = []
        self.failures = 0
        self.refused: set[Subject] = set()
        self.go, self.entered = asyncio.Event(), asyncio.Event()
        self.go.set()

    async def shard_counts(self, adding: int = 0) -> set[int]:
        self.announced.append(adding)
        return {adding}

    async def hand_over(self, batch: Sequence[Handed], **_: int) -> tuple[list[Handed], int]:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("away")
        self.entries += [(one.subject, one.version) for one in batch if one.subject not in self.refused]
        self.entered.set()
        await self.go.wait()
        return [one for one in batch if one.subject in self.refused], 0

    async def erase(self, subject: Subject) -> int:
        before = len(self.entries)
        self.entries = [one for one in self.entries if one[0] != subject]
        return before - len(self.entries)


def handover(stream: Stream, waiting_max: int = 10, clock: Clock = time.monotonic) -> tuple[Handover, EncodeMetrics]:
    metrics = EncodeMetrics(CollectorRegistry())
    found = Handover(cast(EncodeStream, stream), metrics, shards=4, cap=100, waiting_max=waiting_max, clock=clock)
    return found, metrics


@asynchronous
async def test_a_subject_waits_once_in_its_newest_version() -> None:
    stream = Stream()
    tested, metrics = handover(stream)
    for subject, version in ((ANN, "1"), (BOB, "1"), (ANN, "2")):
        tested.add(subject, version)
    assert await tested.flush()
    assert stream.entries == [(ANN, "2"), (BOB, "1")]
    assert stream.announced == [4]
    assert tested.idle
    assert value_of(metrics.handed, "handed") == 2


@asynchronous
async def test_what_redis_does_not_take_is_sent_again_unless_something_newer_waits() -> None:
    stream = Stream()
    tested, metrics = handover(stream)
    stream.failures = 2
    tested.add(ANN, "1")
    tested.add(BOB, "1")
    assert not await tested.flush()
    tested.add(BOB, "2")
    assert not await tested.flush()
    assert not tested.idle
    assert value_of(metrics.waiting) == 2
    assert await tested.flush()
    assert stream.entries == [(ANN, "1"), (BOB, "2")]
    assert value_of(metrics.waiting) == 0


@asynchronous
async def test_a_shard_that_fails_holds_nobody_else_up() -> None:
    stream = Stream()
    tested, _ = handover(stream)
    stream.refused = {ANN}
    tested.add(ANN, "1")
    tested.add(BOB, "1")
    assert not await tested.flush()
    stream.refused = set()
    tested.add(EVE, "1")
    assert await tested.flush()
    assert stream.entries == [(BOB, "1"), (ANN, "1"), (EVE, "1")]


@asynchronous
async def test_too_many_that_wait_are_dropped_and_counted() -> None:
    stream = Stream()
    tested, metrics = handover(stream, waiting_max=2)
    for subject in (ANN, BOB, EVE, ANN):
        tested.add(subject, "1")
    assert value_of(metrics.handed, "dropped") == 1
    assert await tested.flush()
    assert stream.entries == [(ANN, "1"), (BOB, "1")]


@asynchronous
async def test_a_subject_erased_on_its_way_leaves_no_entry_and_its_new_events_stay() -> None:
    stream = Stream()
    tested, _ = handover(stream)
    stream.go.clear()
    tested.add(ANN, "1")
    tested.add(BOB, "1")
    sending = asyncio.create_task(tested.flush())
    await stream.entered.wait()
    tested.forget(ANN)
    tested.add(ANN, "after")
    stream.go.set()
    await sending
    assert stream.entries == [(BOB, "1")]
    await tested.flush()
    assert stream.entries == [(BOB, "1"), (ANN, "after")]
    assert tested.idle


@asynchronous
async def test_a_subject_erased_just_after_it_was_handed_over_leaves_no_entry() -> None:
    """The word of an erasure comes by pub/sub: by then its entries may have been deleted, and one added again."""
    clock, stream = FakeClock(), Stream()
    tested, _ = handover(stream, clock=clock)
    tested.add(ANN, "1")
    tested.add(BOB, "1")
    await tested.flush()
    tested.forget(ANN)
    assert not tested.idle
    await tested.flush()
    assert stream.entries == [(BOB, "1")]
    clock.advance(10.0)
    tested.add(EVE, "1")
    await tested.flush()
    tested.forget(BOB)  # whoever erased it has deleted what went so long ago
    assert tested.idle


@asynchronous
async def test_an_erased_subject_does_not_wait_any_more() -> None:
    stream = Stream()
    tested, _ = handover(stream)
    stream.failures = 1
    tested.add(ANN, "1")
    await tested.flush()
    tested.forget(ANN)
    await tested.flush()
    assert stream.entries == []
    assert tested.idle


@asynchronous
async def test_what_waits_is_handed_over_before_the_process_ends() -> None:
    stream = Stream()
    tested, _ = handover(stream, waiting_max=1000)
    stream.failures = 1
    for number in range(600):
        tested.add(Subject("user", f"u{number}"), "1")
    await tested.drain(10.0)
    assert len(stream.entries) == 600
