"""The loop of the sink: read, write, copy to the topic, acknowledge. Nothing else acknowledges.

At least once: what was not acknowledged is read again after a crash, and the writer finds what the files have. While
the folder or Redis is away, the batch in hand is tried again and nothing more is read once the hand is full.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from deploy.loop.sink.batch_writer import BatchWriter, Written
from deploy.loop.sink.hand import Hand
from deploy.loop.sink.lease import Lease
from model.online.log_schema import LogError
from service.common import logs
from service.common.errors import ServiceError, StoreUnavailable
from service.common.os_errors import sentence
from service.metrics.sink_metrics import SinkMetrics
from service.store.redis.redis_causes import MEANINGS
from service.store.streams.log_streams import STREAMS, Shard
from service.store.streams.stream_group import BEGINNING, NEW, StreamEntry, StreamGroup

log = logs.get(__name__)

T = TypeVar("T")

# Entries of one shard that are read at once.
_PAGE = 500
_IDLE_S, _SHARDS_S, _LAG_S = 0.1, 2.0, 2.0
# After a failed attempt the loop waits for the first of these, then twice as long each time, up to the last.
_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 15.0


class Topic(Protocol):
    """Where lists are copied to (`service.intake.exposures.ExposureTopic`)."""

    async def forward(self, exposures: Sequence[Mapping[str, Any]]) -> int:
        """Writes lists; raises ServiceError if one is not confirmed."""


class Live(Protocol):
    """What looks at entries as they are read (`deploy.loop.sink.live_outcomes`)."""

    def feed(self, shard: Shard, entries: Sequence[StreamEntry]) -> None:
        """Takes new entries."""

    def begin(self) -> None:
        """This process reads from now on."""

    def stand_by(self) -> None:
        """Another process reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """When a batch is written.

    Attributes:
        entries: With so many entries.
        bytes: With so many bytes.
        seconds: When its oldest entry has waited so long.
        stop_s: How long a stop waits for a folder or a server that is away.
        once: Whether to stop when everything has been read and written.
    """

    entries: int = 20_000
    bytes: int = 64 << 20
    seconds: float = 60.0
    stop_s: float = 10.0
    once: bool = False


class Sink:
    """Moves entries from the streams to the log until it is asked to stop.

    Attributes:
        failing_since: Monotonic time since when something fails; None while all is well.
        turned_at: Monotonic time of the last turn of the loop.
        caught_up: Set once everything that there was has been read and written.
    """

    def __init__(
        self,
        group: StreamGroup,
        lease: Lease,
        writer: BatchWriter,
        metrics: SinkMetrics,
        bounds: Bounds,
        *,
        in_lane: Callable[[Callable[[], Any]], Awaitable[Any]],
        topic: Topic | None = None,
        live: Live | None = None,
    ) -> None:
        """Connects the parts.

        Args:
            group: Reads and acknowledges.
            lease: Says whether this process may.
            writer: Writes the files.
            metrics: Of the sink.
            bounds: When a batch is written.
            in_lane: Runs what changes the log in the one thread that may.
            topic: Where lists are copied to.
            live: Looks at entries as they are read.
        """
        self._group, self._lease, self._writer = group, lease, writer
        self._metrics, self._bounds, self._in_lane = metrics, bounds, in_lane
        self._topic, self._live = topic, live
        self._hand = Hand()
        self._places: dict[Shard, str] = {}
        self._shards_at = self._lag_at = float("-inf")
        self._pause_s = 0.0
        self.failing_since: float | None = None
        self.turned_at = time.monotonic()
        self.caught_up = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop` is set. What is in hand is then written, unless the folder stays away."""
        while not stop.is_set():
            self.turned_at = time.monotonic()
            try:
                if not self._lease.held and not await self._begin():
                    await _wait(stop, min(1.0, self._bounds.seconds))
                    continue
                idle = await self._turn(stop)
                self._recovered()
                if idle and self._bounds.once and self._hand.entries:
                    await self._flush(stop)
                    continue
            except StoreUnavailable as error:
                self._failed("redis", _meaning(error))
                await self._back_off(stop)
                continue
            if idle and not self._hand.entries:
                self.caught_up.set()
                if self._bounds.once:
                    break
            if idle:
                await _wait(stop, _IDLE_S)
        if self._lease.held:
            with contextlib.suppress(StoreUnavailable):
                await self._flush(stop)
            await self._lease.give_back()

    async def _begin(self) -> bool:
        """Takes the lease; whoever had it may have left entries behind."""
        self._hand.clear()
        held = await self._lease.take()
        self._metrics.waiting.set(not held)
        if self._live is not None and held:
            self._live.begin()
        elif self._live is not None:
            self._live.stand_by()
        if held:
            self._places = dict.fromkeys(self._places, BEGINNING)
        return held

    async def _turn(self, stop: asyncio.Event) -> bool:
        """Reads and writes once; returns whether there was nothing to do."""
        await self._look_around()
        due = (
            self._hand.entries >= self._bounds.entries
            or self._hand.bytes >= self._bounds.bytes
            or self._hand.age_s >= self._bounds.seconds
        )
        if not due and await self._read():
            return False
        if due:
            await self._flush(stop)
        return not due

    async def _look_around(self) -> None:
        now = time.monotonic()
        if now - self._shards_at >= _SHARDS_S:
            for number in range(await self._group.shards()):
                for stream in STREAMS:
                    self._places.setdefault(Shard(stream, number), BEGINNING)
            self._shards_at = now
        if now - self._lag_at >= _LAG_S:
            lags = await self._group.lag(list(self._places))
            for stream in STREAMS:
                behind = sum(sum(lag) for shard, lag in lags.items() if shard.stream == stream)
                self._metrics.lag.labels(stream).set(behind)
            self._lag_at = now

    async def _read(self) -> bool:
        """Reads a page of each shard; returns whether anything came, or may still come at once."""
        if not self._places:
            return False
        try:
            pages = await self._group.read(self._places, _PAGE)
        except StoreUnavailable:
            # The server may have given us entries that we never saw.
            self._places = dict.fromkeys(self._places, BEGINNING)
            raise
        more, failure = False, None
        for shard, page in pages.items():
            if isinstance(page, StoreUnavailable):
                self._places[shard], failure = BEGINNING, page
                continue
            again = self._places[shard] != NEW
            if not again and not page:
                continue
            more = True
            self._places[shard] = page[-1].id if again and page else NEW
            new = self._hand.take(shard, page, again=again)
            if self._live is not None and new:
                self._live.feed(shard, new)
        if failure is not None:
            raise failure
        return more

    async def _flush(self, stop: asyncio.Event) -> None:
        """Writes what is in hand, and acknowledges it; tries until that succeeds, or a stop takes too long."""
        if not self._hand.entries:
            return
        self._metrics.batch.observe(self._hand.entries)
        batch = self._hand.by_shard
        write = lambda: self._in_lane(lambda: self._writer.write(batch, keep_lists=self._topic is not None))  # noqa: E731
        written: Written | None = await self._insist("log", write, stop)
        if written is None:
            return
        if self._topic is not None and written.exposures:
            forward = self._topic.forward
            if await self._insist("topic", lambda: forward(written.exposures), stop) is None:
                return
        if await self._insist("redis", lambda: self._acknowledge(written), stop) is None:
            return
        self._hand.clear()
        self._metrics.written_at.set_to_current_time()
        log.debug("batch_written")
        if all(place == NEW for place in self._places.values()):
            # Where something comes all the time, nothing is ever idle.
            self.caught_up.set()

    async def _acknowledge(self, written: Written) -> bool:
        await self._group.acknowledge(written.done)
        return True

    async def _insist(self, what: str, step: Callable[[], Awaitable[T]], stop: asyncio.Event) -> T | None:
        """Repeats a step until it succeeds; None if it does not in time, or another process reads by now."""
        give_up_at: float | None = None
        while await self._still_ours():
            try:
                done = await step()
            except Exception as error:  # clients of object stores have errors of their own
                self._failed(what, _said(error))
            else:
                self._recovered()
                return done
            if stop.is_set():
                give_up_at = give_up_at or time.monotonic() + self._bounds.stop_s
                if time.monotonic() >= give_up_at:
                    log.warning("batch_left", entries=self._hand.entries, detail="it is read again at the next start")
                    return None
            await self._back_off(stop)
        self._hand.clear()
        return None

    async def _still_ours(self) -> bool:
        """Whether this process may still act; a Redis that is away takes the lease from nobody."""
        if self._lease.held:
            return True
        try:
            return await self._lease.take()
        except StoreUnavailable as error:
            self._failed("redis", _meaning(error))
            return True

    async def _back_off(self, stop: asyncio.Event) -> None:
        self._pause_s = min(max(2 * self._pause_s, _PAUSE_S), _LONGEST_PAUSE_S)
        self.turned_at = time.monotonic()
        if stop.is_set():
            await asyncio.sleep(_PAUSE_S)
        else:
            await _wait(stop, self._pause_s)

    def _failed(self, what: str, detail: str) -> None:
        self._metrics.failures.labels(what).inc()
        if self.failing_since is None:
            self.failing_since = time.monotonic()
            self._metrics.holding.set(1)
            log.error("sink_holds", what=what, detail=detail, entries=self._hand.entries)

    def _recovered(self) -> None:
        self._pause_s = 0.0
        if self.failing_since is not None:
            log.warning("sink_goes_on", after_s=round(time.monotonic() - self.failing_since, 3))
            self.failing_since = None
            self._metrics.holding.set(0)


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()


def _said(error: Exception) -> str:
    if isinstance(error, StoreUnavailable):
        return _meaning(error)
    if isinstance(error, OSError):
        return sentence(error)
    return str(error) if isinstance(error, LogError | ServiceError) else f"{type(error).__name__}: {error}"


def _meaning(error: StoreUnavailable) -> str:
    meaning = MEANINGS.get(error.cause, "")  # type: ignore[call-overload]
    return f"Redis cannot be used: {meaning} ({error})"
