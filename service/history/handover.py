"""Hands subjects with new events over to the processes that encode (`service.store.streams.encode_stream`).

No answer waits for it. What Redis does not take waits here, one entry for each subject, and is sent again. If this
process dies, what waits is lost, and the next request of its subjects encodes.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from itertools import islice

from service.common import logs
from service.common.deadline import Clock
from service.common.errors import StoreUnavailable
from service.metrics.encode_metrics import EncodeMetrics
from service.process.background import being_cancelled
from service.store.records import Subject
from service.store.streams.encode_stream import EncodeStream, Handed

log = logs.get(__name__)

# Subjects that are handed over together, and how long the first of them waits for others.
_BATCH = 256
_GATHER_S = 0.01
_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0
# So long a word of an erasure may be on its way, and what was handed over meanwhile must be deleted once more.
_RECENT_S = 5.0


class Handover:
    """Hands subjects over; start `run` as a background task. Use it from the event loop only."""

    def __init__(
        self,
        stream: EncodeStream,
        metrics: EncodeMetrics,
        *,
        shards: int,
        cap: int,
        waiting_max: int,
        carrier: Callable[[], Mapping[str, str]] = dict,
        clock: Clock = time.monotonic,
    ) -> None:
        """Prepares it.

        Args:
            stream: Where subjects are handed over.
            metrics: What is counted.
            shards: Number of shards.
            cap: Entries that a shard keeps.
            waiting_max: Subjects that may wait for Redis.
            carrier: Returns `traceparent` and `tracestate` of the request that is being answered, if it has a trace.
            clock: Monotonic seconds.
        """
        self._clock = clock
        self._stream, self._metrics, self._carrier = stream, metrics, carrier
        self._shards, self._cap, self._waiting_max = shards, cap, waiting_max
        self._waiting: dict[Subject, Handed] = {}
        self._sending: frozenset[Subject] = frozenset()
        self._sent: dict[Subject, float] = {}  # and when, the oldest first
        self._erased: set[Subject] = set()
        self._added = asyncio.Event()
        self._announced = self._failing = False

    @property
    def idle(self) -> bool:
        """Whether everything is handed over."""
        return not (self._waiting or self._sending or self._erased)

    def add(self, subject: Subject, version: str) -> None:
        """Hands a subject over, soon. An entry of it that waits is replaced: the log is encoded as it is by then.

        Args:
            subject: Whose log it is.
            version: Version of the log; "" if something else has changed.
        """
        if subject not in self._waiting and len(self._waiting) >= self._waiting_max:
            self._metrics.handed.labels("dropped").inc()
            return
        self._waiting[subject] = Handed(subject, version, **self._carrier())
        self._added.set()

    def forget(self, subject: Subject) -> None:
        """Drops what waits of a subject that is erased; what is on its way, or went of late, is deleted."""
        self._waiting.pop(subject, None)
        if subject in self._sending or self._sent.pop(subject, None) is not None:
            self._erased.add(subject)
            self._added.set()

    async def run(self) -> None:
        """Hands over what waits until cancelled."""
        pause_s = 0.0
        while True:
            await self._added.wait()
            await asyncio.sleep(pause_s or _GATHER_S)
            pause_s = 0.0 if await self.flush() else min(max(2.0 * pause_s, _PAUSE_S), _LONGEST_PAUSE_S)

    async def flush(self) -> bool:
        """Hands a batch over; returns False if some of it must be sent again."""
        self._added.clear()
        batch = list(islice(self._waiting.values(), _BATCH))
        for one in batch:
            del self._waiting[one.subject]
        self._sending = frozenset(one.subject for one in batch)
        left = batch
        try:
            left = await self._hand_over(batch)
            self._note(None if not left else "some shards could not be written")
        except StoreUnavailable as error:
            self._note(str(error))
        finally:
            self._note_sent(self._sending)
            self._sending = frozenset()
            # What was added meanwhile is newer.
            self._waiting = {one.subject: one for one in left if one.subject not in self._erased} | self._waiting
            self._metrics.waiting.set(len(self._waiting))
            if not self.idle:
                self._added.set()
        return not left

    async def drain(self, timeout_s: float) -> None:
        """Hands over what waits, as far as the time allows. Call it when `run` has ended."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not self.idle and not being_cancelled():
                    if not await self.flush():
                        await asyncio.sleep(_PAUSE_S)
        if not self.idle:
            log.warning("not_handed_over", subjects=len(self._waiting))

    async def _hand_over(self, batch: list[Handed]) -> list[Handed]:
        """Hands a batch over; returns what must be sent again."""
        if not self._announced:  # before the first entry: who encodes and who erases must know of the shards
            await self._stream.shard_counts(adding=self._shards)
            self._announced = True
        await self._erase()  # first: who was erased may have new events by now
        left: list[Handed] = []
        if batch:
            left, trimmed = await self._stream.hand_over(batch, shards=self._shards, cap=self._cap)
            self._metrics.handed.labels("handed").inc(len(batch) - len(left))
            self._metrics.handed.labels("trimmed").inc(trimmed)
        await self._erase()
        return left

    async def _erase(self) -> None:
        """Deletes the entries of subjects that were erased while a batch with theirs was on its way."""
        for subject in list(self._erased):
            await self._stream.erase(subject)
            self._erased.discard(subject)

    def _note_sent(self, subjects: Iterable[Subject]) -> None:
        now = self._clock()
        for subject in subjects:
            self._sent.pop(subject, None)
            self._sent[subject] = now
        while self._sent and now - next(iter(self._sent.values())) > _RECENT_S:
            del self._sent[next(iter(self._sent))]

    def _note(self, failure: str | None) -> None:
        """Logs the beginning and the end of a failure, once each."""
        if failure is not None and not self._failing:
            log.warning("handover_waits", detail=failure, subjects=len(self._waiting) + len(self._sending))
        elif failure is None and self._failing:
            log.info("handing_over_again")
        self._failing = failure is not None
