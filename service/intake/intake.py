"""The loop of the intake: take, parse, store, write dead letters, mark as done. Nothing else commits.

At least once: what was not marked is read again after a crash, and the store finds that it has those events. While the
store or the dead-letter topic is away, the batch in hand is tried again and nothing more is read, so memory stays
bounded; the consumer remains in its group.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from service.common import logs
from service.common.errors import ServiceError, StoreUnavailable
from service.intake.intake_metrics import IntakeMetrics
from service.intake.messages import DeadLetter, Parsed, Parser, parsed
from service.intake.records import DeliveryFailed, Record, Sender, Source
from service.schemas.user_requests import MAX_EVENTS, Event, EventsRequest

log = logs.get(__name__)

_PAUSE_S, _PAUSE_MOST_S = 0.1, 2.0
# How long the next events wait for those before them to be recorded, and how often they look.
_ROOM_S, _ROOM_LOOK_S = 5.0, 0.005


class Ingest(Parser, Protocol):
    """`service.history.ingest.Ingest` as the intake uses it."""

    async def append(self, request: EventsRequest) -> dict[str, Any]:
        """Stores events; raises StoreUnavailable."""


class Intake:
    """Reads from a source into the store until it is asked to stop.

    Attributes:
        holding_since: Monotonic time since when nothing can be stored; None while all is well.
    """

    def __init__(
        self,
        source: Source,
        ingest: Ingest,
        sender: Sender,
        metrics: IntakeMetrics,
        *,
        dead_letter_topic: str,
        latest_ms: Callable[[], int],
        bytes_max: int,
        stop_patience_s: float,
        recording: Callable[[], int] = lambda: 0,
        recording_max: int = MAX_EVENTS,
    ) -> None:
        """Connects the parts.

        Args:
            source: The consumer.
            ingest: The code of `POST /events`.
            sender: Writes dead letters.
            metrics: Of the intake.
            dead_letter_topic: Where they go.
            latest_ms: Returns the latest timestamp that an event may have now, in epoch milliseconds.
            bytes_max: Size of the largest message.
            stop_patience_s: How long a stop waits for a store that is away, with a batch in hand.
            recording: Returns how many stored events are not in the stream of events yet.
            recording_max: How many may be; the stream drops what is beyond.
        """
        self._source, self._ingest, self._sender, self._metrics = source, ingest, sender, metrics
        self._topic, self._latest_ms, self._bytes_max = dead_letter_topic, latest_ms, bytes_max
        self._stop_patience_s = stop_patience_s
        self._recording, self._recording_max = recording, recording_max
        self.holding_since: float | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop` is set. The batch in hand is finished, unless the store stays away."""
        while not stop.is_set():
            records = await self._source.take()
            if records:
                await self._work(records, stop)

    async def _work(self, records: Sequence[Record], stop: asyncio.Event) -> None:
        self._metrics.batch.observe(len(records))
        latest_ms = self._latest_ms()
        batch = [parsed(record, self._ingest, latest_ms, self._bytes_max) for record in records]
        left = await self._insist("store", self._store, batch, stop)
        stored_at = time.time()
        if left:
            left = await self._insist("dead_letters", self._bury, left, stop)
        if left:
            self._source.stored([one.record for one in left])
            self._count(left, stored_at)

    async def _insist(
        self,
        what: str,
        step: Callable[[Sequence[Parsed]], Awaitable[None]],
        batch: list[Parsed],
        stop: asyncio.Event,
    ) -> list[Parsed]:
        """Repeats a step until it succeeds.

        Returns:
            The messages that are still this process's own; none as well if the process stops and the step does not
            succeed in time: those messages are read again by whoever comes next.
        """
        pause_s = _PAUSE_S
        give_up_at: float | None = None
        while batch:
            try:
                await step(batch)
                break
            except (StoreUnavailable, DeliveryFailed) as error:
                self._failed(what, error)
            if stop.is_set():
                give_up_at = give_up_at or time.monotonic() + self._stop_patience_s
                if time.monotonic() >= give_up_at:
                    log.warning("batch_left_unstored", messages=len(batch), detail="it is read again at the next start")
                    return []
            await self._source.hold(pause_s)
            pause_s = min(2 * pause_s, _PAUSE_MOST_S)
            batch = self._still_owned(batch)
        if self.holding_since is not None:
            log.warning("intake_goes_on", after_s=round(time.monotonic() - self.holding_since, 3))
            self.holding_since = None
            self._metrics.paused.set(0)
            await self._source.go_on()
        return batch

    def _failed(self, what: str, error: ServiceError) -> None:
        self._metrics.retries.labels(what).inc()
        if self.holding_since is None:
            self.holding_since = time.monotonic()
            self._metrics.paused.set(1)
            log.error("intake_holds", what=what, reason=error.reason, detail=str(error)[:300])

    def _still_owned(self, batch: list[Parsed]) -> list[Parsed]:
        owned = {(one.partition, one.offset) for one in self._source.owned([one.record for one in batch])}
        kept = [one for one in batch if (one.record.partition, one.record.offset) in owned]
        if len(kept) < len(batch):
            self._metrics.abandoned.inc(len(batch) - len(kept))
            log.info("partitions_left_with_messages_in_hand", messages=len(batch) - len(kept))
        return kept

    async def _store(self, batch: Sequence[Parsed]) -> None:
        """Appends the events in their order, as many at once as one body may hold."""
        events: list[Event] = [event for one in batch for event in one.events]
        size = min(MAX_EVENTS, self._recording_max)
        for first in range(0, len(events), size):
            # They are validated already, each with its own message.
            request = EventsRequest.model_construct(events=events[first : first + size])
            await self._wait_for_room(len(request.events))
            answer = await self._ingest.append(request)
            for outcome in ("accepted", "duplicate"):
                found = answer["accepted" if outcome == "accepted" else "duplicates"]
                self._metrics.events.labels(outcome).inc(found)

    async def _wait_for_room(self, events: int) -> None:
        """Lets the stream of events catch up. Not for ever: it may be unusable while histories are not."""
        await asyncio.sleep(0)  # what was stored before this is counted then
        until = time.monotonic() + _ROOM_S
        while (waiting := self._recording()) and waiting + events > self._recording_max:
            if time.monotonic() >= until:
                return
            await asyncio.sleep(_ROOM_LOOK_S)

    async def _bury(self, batch: Sequence[Parsed]) -> None:
        """Writes the dead letters; one that is too large for the topic is written without its value."""
        letters = [letter for one in batch for letter in one.dead]
        if not letters:
            return
        try:
            await self._sender.send([letter.outgoing(self._topic) for letter in letters])
        except DeliveryFailed as error:
            if not error.too_large:
                raise
            for letter in letters:
                await self._bury_alone(letter)

    async def _bury_alone(self, letter: DeadLetter) -> None:
        try:
            await self._sender.send([letter.outgoing(self._topic)])
        except DeliveryFailed as error:
            if not error.too_large:
                raise
            await self._sender.send([letter.outgoing(self._topic, without_value=True)])

    def _count(self, batch: Sequence[Parsed], stored_at: float) -> None:
        dead = 0
        for one in batch:
            self._metrics.messages.labels(one.outcome).inc()
            dead += len(one.dead)
            if one.record.time_ms is not None:
                self._metrics.delay.observe(max(0.0, stored_at - one.record.time_ms / 1000.0))
        if dead:
            self._metrics.events.labels("dead").inc(dead)
            reasons = sorted({letter.error.reason for one in batch for letter in one.dead})
            log.warning("dead_letters", count=dead, topic=self._topic, reasons=reasons)
