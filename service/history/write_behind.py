"""Work behind the acknowledgement of an event: its user's state is brought up to date and stored.

One loop takes the users whose events came in since its last turn, reads those histories that are not cached, encodes
them together, and writes the new states to Redis with compare-and-set, in one round trip. No request waits for it: a
`/recommend` that arrives first encodes on its own, and if the queue is full, the user's next request encodes.

In the role `answer` the users are handed over to other processes instead (`service.history.handover`), and the loop
stores the states of what requests had to encode themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from service.common import logs
from service.common.errors import StoreUnavailable
from service.history.handover import Handover
from service.history.profile import Profile, extended
from service.history.state_keeper import StateKeeper
from service.history.state_writer import StateWriter
from service.history.write_queue import WriteQueue
from service.lifecycle.served_model import ServedModel
from service.metrics.service_metrics import Metrics
from service.process.background import being_cancelled
from service.store.records import AppendResult, NewEvent, Subject, UserRecord
from service.store.store import Store

log = logs.get(__name__)

_EMPTY_RECORD = UserRecord("", ())


class WriteBehind:
    """Encodes histories with new events, and stores new states; start `run` as a background task.

    Attributes:
        queue: The work that waits. When it is full, further states are late but no event is lost.
    """

    def __init__(
        self,
        queue: WriteQueue,
        keeper: StateKeeper,
        store: Store,
        metrics: Metrics,
        *,
        on_forget: Callable[[Subject], object] | None = None,
        handover: Handover | None = None,
    ) -> None:
        """Prepares the loop.

        Args:
            queue: The work that waits.
            keeper: Encodes.
            store: Where histories and states are.
            metrics: What is counted.
            on_forget: Called with each subject that is erased, here or on another replica.
            handover: Takes the subjects with new events; None to encode them here.
        """
        self.queue = queue
        self._on_forget, self._handover = on_forget, handover
        self._keeper = keeper
        self._writer = StateWriter(keeper, store, metrics)
        self._store = store
        self._metrics = metrics
        self._busy = False

    @property
    def idle(self) -> bool:
        """Whether every known event is encoded or handed over, and every state stored."""
        handed = self._handover is None or self._handover.idle
        return handed and not (self._busy or len(self.queue) or self._keeper.in_flight)

    @property
    def erasure_epoch(self) -> int:
        """Number of erasures seen here; note it before events are written, for `appended`."""
        return self._keeper.erasure_epoch

    def appended(
        self,
        subject: Subject,
        model: ServedModel,
        events: Sequence[NewEvent],
        result: AppendResult,
        epoch: int,
    ) -> None:
        """Takes note of an append: updates the cached history, and queues it to be encoded.

        Args:
            subject: Whose events they are.
            model: The model in service.
            events: The events that were written.
            result: What the store answered, with the new version of the log.
            epoch: The erasure epoch before the write. If it has changed, the cached history is dropped, because the
                erased subject may be this one.
        """
        if self._handover is not None:
            if any(event.in_history for event in events):
                self._keeper.cache.drop(subject)  # it is read again, with the state that another process has stored
                if epoch == self.erasure_epoch:  # else it may be erased, and its next request encodes if it is not
                    self._handover.add(subject, result.version)
            return
        cached = self._keeper.cache.get(subject, model)
        before = _EMPTY_RECORD if cached is None else cached.record
        stored = (result.version, result.seen_stamp)
        if before.same_as(*stored):
            return
        record = extended(before, events, subject, self._keeper.history_cap, self._store.settings.seen_max)
        if record is not None and record.same_as(*stored) and epoch == self.erasure_epoch:
            self._keeper.cache.put(Profile(subject, model, record, None if cached is None else cached.base))
        else:
            self._keeper.cache.drop(subject)  # it must be read again
        if not self.queue.add_history(subject, model):
            self._metrics.state_cache.labels("state", "dropped").inc()

    def features_changed(self, subject: Subject, model: ServedModel) -> None:
        """Takes note of new features: their history is read again, and encoded where the encoder reads them.

        Args:
            subject: Whose features they are.
            model: The model that answers the subject.
        """
        self._keeper.cache.drop(subject)
        if self._handover is not None:
            if model.reads_features:
                self._handover.add(subject, "")
        elif model.reads_features and not self.queue.add_history(subject, model):
            self._metrics.state_cache.labels("state", "dropped").inc()

    def forget(self, subject: Subject) -> None:
        """Removes everything about the subject from this process."""
        self.queue.discard(subject)
        if self._handover is not None:
            self._handover.forget(subject)
        self._keeper.forget(subject)
        if self._on_forget is not None:
            self._on_forget(subject)

    async def run(self) -> None:
        """Works off the queue until cancelled."""
        while True:
            await self.queue.wait()
            await self._turn()

    async def drain(self, timeout_s: float) -> None:
        """Encodes and stores what is queued, as far as the time allows. Call it after `run` has ended."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._work_off()
                await self._keeper.drain()
                await self._work_off()
        except TimeoutError:
            log.warning("states_not_stored", users=len(self.queue))

    async def _work_off(self) -> None:
        while len(self.queue) and not being_cancelled():
            await self._turn()

    async def _turn(self) -> None:
        self._busy = True
        try:
            await self._encode(self.queue.take_histories())
            await self._writer.store(self.queue.take_states())
        except StoreUnavailable as error:
            log.debug("write_behind_failed", reason=error.reason)
        except Exception as error:
            log.error("write_behind_broke", **logs.where(error))
        finally:
            self._busy = False

    async def _encode(self, subjects: dict[Subject, ServedModel]) -> None:
        """Encodes the histories of the subjects, in as few runs as their lengths allow."""
        profiles = await self._writer.profiles(subjects, trust_cache=True)
        encodings = [self._keeper.catch_up(profile) for profile in profiles]
        in_flight = [encoding for encoding in encodings if encoding is not None]
        if in_flight:
            await asyncio.wait(in_flight)
