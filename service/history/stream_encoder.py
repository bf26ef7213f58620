"""The work of the role `encode`: subjects are taken from the stream, their histories encoded, their states stored.

Every process of the role is a consumer of one group. An entry is finished when the state is stored, so whatever a
process was given when it died is taken over by another one after a while. To encode a log twice does no harm: a state
is stored only if the log still has the version that it was computed from.

A process takes no more than it can encode at a time, in two turns that overlap: one encodes while the other reads or
stores. What it does not take stays in the stream for others.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from service.common import logs
from service.common.deadline import Clock
from service.common.errors import StoreUnavailable
from service.history.profile import Profile
from service.history.state_blob import VersionedState
from service.history.state_keeper import StateKeeper
from service.history.state_writer import StateWriter
from service.history.write_queue import WriteQueue
from service.lifecycle.served_model import ServedModel
from service.metrics.encode_metrics import EncodeMetrics
from service.process.background import being_cancelled
from service.store.records import Subject
from service.store.streams.encode_stream import EncodeStream, Taken
from service.tracing import tracing

log = logs.get(__name__)

_TURNS = 2
_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0
# How often it is asked whether somebody writes with another number of shards.
_SHARDS_S = 5.0


class StreamEncoder:
    """Encodes what the stream holds; start `run` as a background task, and call `drain` before it is cancelled."""

    def __init__(
        self,
        stream: EncodeStream,
        keeper: StateKeeper,
        writer: StateWriter,
        queue: WriteQueue,
        model: Callable[[Subject], ServedModel],
        metrics: EncodeMetrics,
        *,
        consumer: str,
        shards: int,
        batch_max: int,
        poll_s: float,
        patience_s: float,
        clock: Clock = time.monotonic,
        wall_clock: Clock = time.time,
    ) -> None:
        """Prepares it.

        Args:
            stream: Where subjects are taken from.
            keeper: Encodes.
            writer: Reads histories and stores states.
            queue: Where the keeper puts the profiles whose state must be stored.
            model: Returns the model that answers a subject.
            metrics: What is counted.
            consumer: The name of this process in the group; no other has it.
            shards: Number of shards to begin with.
            batch_max: Subjects of one turn.
            poll_s: Pause between two looks at the stream, unless there is a backlog.
            patience_s: After this time, entries that nobody finished are taken over.
            clock: Monotonic seconds.
            wall_clock: Epoch seconds.
        """
        self._stream, self._keeper, self._writer, self._queue = stream, keeper, writer, queue
        self._model, self._metrics = model, metrics
        self._consumer, self._batch_max = consumer, batch_max
        self._poll_s, self._patience_s = poll_s, patience_s
        self._clock, self._wall_clock = clock, wall_clock
        self._counts = {shards}
        self._shards_due = self._takeover_due = self._read_due = 0.0
        self._reading = asyncio.Lock()
        self._held: set[tuple[int, str]] = set()
        self._in_hand: Counter[Subject] = Counter()
        self._stop = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._failing = False

    @property
    def shards(self) -> range:
        """The shards that anybody writes to."""
        return range(max(self._counts))

    async def run(self) -> None:
        """Works until `drain` is called, or until cancelled."""
        if self._stop.is_set():  # it is started again while the process stops
            return
        self._idle.clear()
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(_TURNS):
                    group.create_task(self._turns())
        finally:
            self._idle.set()

    async def drain(self, timeout_s: float) -> None:
        """Finishes what was taken, takes nothing more, and leaves the group.

        What is not finished in time, another process takes over.
        """
        self._stop.set()
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
                await self._store_others()
                left = await self._stream.leave(self.shards, self._consumer)
            log.info("left_the_encoders", entries_held=left)
        except (TimeoutError, StoreUnavailable):
            log.warning("encoding_not_finished", entries_held=len(self._held))

    async def _turns(self) -> None:
        pause_s = 0.0
        while not self._stop.is_set() and not being_cancelled():
            taken: list[Taken] = []
            try:
                async with self._reading:  # one of the turns at a time
                    await self._pause(self._read_due - self._clock())
                    if self._stop.is_set():
                        return
                    taken = await self._take()
                failed = not await self._turn(taken) and bool(taken)
                await self._store_others()
                self._note(None)
            except StoreUnavailable as error:
                failed = True
                self._note(str(error))
            except Exception as error:
                failed = True
                log.error("encoding_broke", **logs.where(error))
            # What failed is pending and given again: whoever goes on as fast as ever takes it from those who work.
            pause_s = min(max(2.0 * pause_s, _PAUSE_S), _LONGEST_PAUSE_S) if failed else 0.0
            await self._pause(pause_s)

    async def _turn(self, taken: Sequence[Taken]) -> bool:
        """Does `turn`, and if that breaks while Redis is well, each entry by itself, so that one holds no other up."""
        with self._holding(taken):
            try:
                return await self.turn(taken)
            except Exception as error:
                if len(taken) == 1 or not _is_of_one(error):
                    raise
            good = False
            for one in taken:
                try:
                    good = await self.turn([one]) or good
                except Exception as error:
                    if not _is_of_one(error):
                        raise
                    self._metrics.entries.labels("failed").inc()
                    log.error("history_not_encoded", **logs.where(error))
            return good

    @contextlib.contextmanager
    def _holding(self, taken: Sequence[Taken]) -> Iterator[None]:
        """Keeps the other turn from taking these entries over, and from storing the states of their subjects."""
        held = {(one.shard, one.id) for one in taken}
        subjects = Counter(one.handed.subject for one in taken if one.handed is not None)
        self._held |= held
        self._in_hand += subjects
        try:
            yield
        finally:
            self._held -= held
            self._in_hand -= subjects

    async def _pause(self, seconds: float) -> None:
        """Waits, but not when the process stops."""
        if seconds > 0.0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._stop.wait()

    async def _take(self) -> list[Taken]:
        """Takes entries: those that somebody did not finish, now and then, and new ones."""
        now = self._clock()
        if now >= self._shards_due:
            self._shards_due = now + _SHARDS_S
            self._counts |= await self._stream.shard_counts()
        count = max(1, -(-self._batch_max // len(self.shards)))
        taken: list[Taken] = []
        if now >= self._takeover_due:
            self._takeover_due = now + self._patience_s / 2.0
            found, given_up = await self._stream.take_over(self.shards, self._consumer, count, self._patience_s)
            taken = [one for one in found if (one.shard, one.id) not in self._held]
            self._metrics.entries.labels("taken_over").inc(len(taken))
            self._metrics.entries.labels("given_up").inc(given_up)
            if given_up:
                log.error("histories_given_up", entries=given_up)
        taken = taken or await self._stream.read(self.shards, self._consumer, count)
        # With a backlog there is no pause. Otherwise few wait, and together they cost less than one by one.
        self._read_due = 0.0 if 2 * len(taken) >= self._batch_max else now + self._poll_s
        return taken

    async def turn(self, taken: Sequence[Taken]) -> bool:
        """Encodes and finishes entries; returns whether any could be finished, or was for somebody else to read.

        Raises:
            StoreUnavailable: They are not finished, and will be given again.
        """
        of_subject: dict[Subject, list[Taken]] = {}
        for one in taken:
            if one.handed is not None:
                of_subject.setdefault(one.handed.subject, []).append(one)
        unreadable = len(taken) - sum(map(len, of_subject.values()))
        self._metrics.entries.labels("unreadable").inc(unreadable)
        outcomes = await self._encode(of_subject)
        done = [one for subject in outcomes for one in of_subject[subject]]
        await self._stream.finish(done)
        self._count(of_subject, outcomes)
        return bool(done or unreadable)

    async def _encode(self, of_subject: Mapping[Subject, Sequence[Taken]]) -> dict[Subject, str]:
        """Brings the stored states of subjects up to date; returns what was done for those where it worked."""
        if not of_subject:
            return {}
        models = {subject: self._model(subject) for subject in of_subject}
        encodings: dict[Subject, asyncio.Task[VersionedState] | None] = {}
        for profile in await self._writer.profiles(models, trust_cache=False):
            assert profile.subject is not None  # noqa: S101 - it was read by its subject
            encodings[profile.subject] = self._start(profile, of_subject[profile.subject])
        in_flight = [encoding for encoding in encodings.values() if encoding is not None]
        if in_flight:
            await asyncio.wait(in_flight)
        await self._store(self._queue.take_states_of(of_subject))
        outcomes: dict[Subject, str] = {}
        for subject, encoding in encodings.items():
            if encoding is None:
                outcomes[subject] = "current"
            elif not encoding.cancelled() and encoding.exception() is None:
                outcomes[subject] = "encoded"
        return outcomes

    def _start(self, profile: Profile, entries: Sequence[Taken]) -> asyncio.Task[VersionedState] | None:
        """Starts the encoding of a history, as a part of the trace of the newest request that asked for one."""
        traces = [one.handed.carrier() for one in entries if one.handed is not None and one.handed.traceparent]
        if not traces:
            return self._keeper.catch_up(profile)
        with tracing.continued(traces[-1], "encode behind events"):
            return self._keeper.catch_up(profile)

    async def _store_others(self) -> None:
        """Stores the states of subjects that are not in hand, as those that were prepared for another model."""
        others = [subject for subject in self._queue.with_state() if subject not in self._in_hand]
        if others:
            await self._store(self._queue.take_states_of(others))

    async def _store(self, profiles: Sequence[Profile]) -> None:
        try:
            await self._writer.store(profiles)
        except StoreUnavailable:
            for profile in profiles:  # what is cached would pass for stored when the entry is given again
                assert profile.subject is not None  # noqa: S101 - only states of subjects are stored
                self._keeper.cache.drop(profile.subject)
            raise

    def _count(self, of_subject: Mapping[Subject, Sequence[Taken]], outcomes: Mapping[Subject, str]) -> None:
        now_ms = self._wall_clock() * 1000.0
        for subject, entries in of_subject.items():
            outcome = outcomes.get(subject)
            self._metrics.entries.labels(outcome or "failed").inc()
            if outcome is None:
                continue
            self._metrics.entries.labels("repeated").inc(len(entries) - 1)
            for one in entries:
                self._metrics.delay.observe(max(0.0, now_ms - one.time_ms) / 1000.0)

    def _note(self, failure: str | None) -> None:
        """Logs the beginning and the end of a failure, once each."""
        if failure is not None and not self._failing:
            log.warning("encoding_waits", detail=failure)
        elif failure is None and self._failing:
            log.info("encoding_again")
        self._failing = failure is not None


def _is_of_one(error: Exception) -> bool:
    """Whether a history may be the cause: it cannot be read as this service writes it, or something broke."""
    return not isinstance(error, StoreUnavailable) or error.cause == "other"
