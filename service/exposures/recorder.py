"""Writes what was shown, and what came of it, behind the answers.

Entries are made right behind the answers. One loop empties a queue for each stream, with one call for each shard and
one round trip for each queue. While Redis is away the queues fill; what does
not fit is dropped and counted. Nothing here delays or fails an answer, merges excepted: an erasure finds the lists and
events of a session by them, so they are written before they are acknowledged. What is not acknowledged is sent again,
so an entry may be in a stream twice: readers go by `list_id` and the event's identity.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

from service.common import logs
from service.common.deadline import Clock
from service.common.errors import StoreUnavailable
from service.common.shares import within_share
from service.exposures.entry_queue import BATCH, EntryQueue, Waiting
from service.exposures.exposure import event_entry, merged_entry, shard_of, subject_name
from service.exposures.list_ids import ListIds
from service.metrics.service_metrics import Metrics
from service.process.background import being_cancelled
from service.store.records import NewEvent, Subject
from service.store.streams.log_streams import Appended, Entry, LogStreams, Shard, StreamName

log = logs.get(__name__)

# How long an entry waits for others to be written with it, unless there are enough for a batch.
_FLUSH_S = 0.25
# After a failed attempt the loop waits for the first of these, then twice as long each time, up to the last.
_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0
# Causes that another attempt does not mend.
_FOR_GOOD = ("other", "wrong_type")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecorderSettings:
    """What is recorded.

    Attributes:
        on: Whether lists and events are recorded at all.
        share: Share of the lists that are recorded. Events are recorded whatever the share.
        shards: Number of shards of each stream.
        cap: Entries that a shard keeps.
        queue_max: Lists that may wait to be written, and as many events.
    """

    on: bool = True
    share: float = 1.0
    shards: int = 8
    cap: int = 10_000
    queue_max: int = 4096


class Recorder:
    """Records lists and events. Not thread-safe: use it from the event loop only; start `run` as a background task."""

    def __init__(
        self, streams: LogStreams, metrics: Metrics, settings: RecorderSettings, wall_clock: Clock = time.time
    ) -> None:
        self._streams, self._metrics, self._settings, self._wall_clock = streams, metrics, settings, wall_clock
        self._ids = ListIds()
        self._lists = EntryQueue("exposures", settings.queue_max, metrics.recording.lists)
        self._events = EntryQueue("events", settings.queue_max, metrics.recording.events)
        self._added, self._full = asyncio.Event(), asyncio.Event()
        self._erased: set[tuple[StreamName, str]] = set()
        self._announced = not settings.on
        self._failing = self._making = False

    @property
    def lists_waiting(self) -> int:
        """Lists that are not written yet."""
        return len(self._lists)

    @property
    def events_waiting(self) -> int:
        """Events that are not written yet."""
        return len(self._events)

    def new_list_id(self) -> str:
        """Returns the id of a new list. Each answer has one, whether it is recorded or not."""
        return self._ids.new(self._now_ms())

    def records(self, list_id: str) -> bool:
        """Returns whether a list is among the share that is recorded; always the same for the same id."""
        return within_share(self._settings.share, "exposures", list_id)

    def shown(self, list_id: str, subject: Subject | None, make: Callable[[], Entry]) -> None:
        """Records a list, when its answer has left.

        Args:
            list_id: Its id, which decides whether it is among the share that is recorded.
            subject: Whose list it is.
            make: Makes its entry; called behind the answer, or not at all.
        """
        if not self._settings.on:
            return
        if self._settings.share < 1.0 and not self.records(list_id):
            self._metrics.recording.lists.labels("not_sampled").inc()
            return
        self._add(self._lists, (subject, list_id, make))
        if not self._making:  # once for all answers of a turn of the event loop
            self._making = True
            asyncio.get_running_loop().call_soon(self._make)

    def _make(self) -> None:
        self._making = False
        self._lists.make_newest()

    def happened(self, batch: Mapping[Subject, Sequence[NewEvent]]) -> None:
        """Records acknowledged events, duplicates included, when their answer has left."""
        if self._settings.on:
            asyncio.get_running_loop().call_soon(self._add_events, batch, self._now_ms())

    async def merged(self, session: Subject, user: Subject) -> None:
        """Records that the lists and events of a session are a user's from now on. Call it before anything is merged.

        Raises:
            StoreUnavailable: It may be recorded or not. Repeating it is safe.
        """
        if not self._settings.on:
            return
        name = subject_name(user)
        entry = merged_entry(subject_name(session), name, self._now_ms())
        await self.announce()
        shard = Shard("events", shard_of(name, self._settings.shards))
        (outcome,) = await self._streams.append([(shard, [entry])], self._settings.cap)
        if isinstance(outcome, StoreUnavailable):
            raise outcome
        self._count(self._events, 1, outcome)

    def forget(self, name: str) -> None:
        """Drops what waits of a subject, as entries name it, that is erased."""
        self._lists.forget(name)
        self._events.forget(name)

    async def announce(self) -> None:
        """Makes sure that erasures know of the number of shards, before the first entry is written.

        Raises:
            StoreUnavailable: It is tried again with the next entries.
        """
        if not self._announced:
            await self._streams.shard_counts(adding=self._settings.shards)
            self._announced = True

    async def run(self) -> None:
        """Writes what is queued until cancelled."""
        pause_s = 0.0
        while True:
            await self._added.wait()
            if pause_s:
                await asyncio.sleep(pause_s)
            else:
                await self._batch()
            done = await self.flush()
            pause_s = 0.0 if done else min(max(2 * pause_s, _PAUSE_S), _LONGEST_PAUSE_S)

    async def flush(self) -> bool:
        """Writes a batch of each queue; returns False if some of it must be sent again."""
        self._added.clear()
        self._full.clear()
        try:
            await self.announce()
            await self._erase()
            again = [await self._write(queue) for queue in (self._lists, self._events) if len(queue)]
            await self._erase()
            done = not any(again)
            self._note(None if done else "some shards could not be written")
        except StoreUnavailable as error:
            done = False
            self._note(str(error))
        for queue in (self._lists, self._events):
            self._wake(queue)
        if self._erased:
            self._added.set()
        return done

    async def drain(self, timeout_s: float) -> None:
        """Writes what is queued, as far as the time allows; the rest counts as failed. Call it when `run` has ended."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await asyncio.sleep(0)  # lists whose answers have just left join
                while (self.lists_waiting or self.events_waiting or self._erased) and not being_cancelled():
                    if not await self.flush():
                        await asyncio.sleep(_PAUSE_S)
        if self.lists_waiting or self.events_waiting:
            log.warning("not_recorded", lists=self.lists_waiting, events=self.events_waiting)
            self._lists.give_up()
            self._events.give_up()

    def _now_ms(self) -> int:
        return int(self._wall_clock() * 1000.0)

    def _add(self, queue: EntryQueue, waiting: Waiting) -> None:
        number = queue.add(waiting)
        if number == 1 or number >= BATCH:
            self._wake(queue)

    def _wake(self, queue: EntryQueue) -> None:
        """Wakes the loop if something waits, at once if it is enough for a batch."""
        if len(queue):
            self._added.set()
        if queue.full_batch:
            self._full.set()

    async def _batch(self) -> None:
        """Waits until there is enough for a batch, but not for long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FLUSH_S):
                await self._full.wait()

    def _add_events(self, batch: Mapping[Subject, Sequence[NewEvent]], received_ms: int) -> None:
        for subject, events in batch.items():
            name = subject_name(subject)
            for event in events:
                make = partial(event_entry, name, event, event.identity(subject), received_ms)
                self._add(self._events, (subject, "", make))
        self._events.make_newest()

    async def _write(self, queue: EntryQueue) -> bool:
        """Writes a batch of a queue; returns whether some of it must be sent again."""
        again = list(queue.take())
        try:
            shards = self._made(queue, again)
            batches = [(Shard(queue.stream, number), entries) for number, (_, entries) in shards.items()]
            outcomes = await self._streams.append(batches, self._settings.cap)
            again = []
            for (part, _), outcome in zip(shards.values(), outcomes, strict=True):
                again += self._settled(queue, part, outcome)
        except StoreUnavailable as error:
            again = self._settled(queue, again, error)
            raise
        finally:
            # The batch may have been written although its write failed.
            self._erased |= {(queue.stream, name) for name in queue.sent(again)}
        return bool(again)

    def _made(self, queue: EntryQueue, batch: list[Waiting]) -> dict[int, tuple[list[Waiting], list[Entry]]]:
        """Makes what is not made yet of a batch, in place, without what cannot be made; returns it by shards."""
        shards: dict[int, tuple[list[Waiting], list[Entry]]] = {}
        at = 0
        while at < len(batch):
            made = queue.made(batch[at])
            if made is None:
                del batch[at]
                continue
            batch[at] = made
            sharded_by = subject_name(made[0]) or made[1]
            of_shard = shards.setdefault(shard_of(sharded_by, self._settings.shards), ([], []))
            of_shard[0].append(made)
            of_shard[1].append(cast(Entry, made[2]))
            at += 1
        return shards

    async def _erase(self) -> None:
        """Deletes the entries of subjects that were erased while a batch with theirs was on its way."""
        for stream, name in list(self._erased):
            await self._streams.erase(Shard(stream, shard_of(name, self._settings.shards)), name)
            self._erased.discard((stream, name))

    def _settled(self, queue: EntryQueue, part: list[Waiting], outcome: Appended | StoreUnavailable) -> list[Waiting]:
        """Counts what became of entries; returns those that must be sent again."""
        if isinstance(outcome, StoreUnavailable):
            if outcome.cause not in _FOR_GOOD:
                return part
            queue.count("failed", len(part))
            log.error("entries_refused", stream=queue.stream, entries=len(part), detail=str(outcome))
            return []
        self._count(queue, len(part), outcome)
        return []

    def _count(self, queue: EntryQueue, entries: int, outcome: Appended) -> None:
        """Counts entries that were written, and what was trimmed for them."""
        queue.count("recorded", entries)
        if outcome.unread:
            self._metrics.recording.trimmed_unread.labels(queue.stream).inc(outcome.unread)

    def _note(self, failure: str | None) -> None:
        """Logs the beginning and the end of a failure, once each."""
        if failure is not None and not self._failing:
            log.warning("recording_waits", detail=failure, lists=self.lists_waiting, events=self.events_waiting)
        elif failure is None and self._failing:
            log.info("recording_again")
        self._failing = failure is not None
