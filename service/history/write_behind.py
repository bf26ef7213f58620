"""Work behind the acknowledgement of an event: its user's state is brought up to date and stored.

One loop takes the users whose events came in since its last turn, reads those histories that are not cached, encodes
them together, and writes the new states to Redis with compare-and-set, in one round trip. No request waits for it: a
`/recommend` that arrives first encodes on its own, and if the queue is full, the user's next request encodes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

from service.common import logs
from service.common.background import being_cancelled
from service.common.errors import StoreUnavailable
from service.common.metrics import Metrics
from service.history import state_blob
from service.history.profile import Profile, extended
from service.history.state_keeper import StateKeeper
from service.history.write_queue import WriteQueue
from service.lifecycle.served_model import ServedModel
from service.store.records import AppendResult, CheckpointWrite, NewEvent, StateWrite, Subject, UserRecord
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
    ) -> None:
        """`on_forget` is called with each subject that is erased, here or on another replica."""
        self.queue = queue
        self._on_forget = on_forget
        self._keeper = keeper
        self._store = store
        self._metrics = metrics
        self._busy = False

    @property
    def idle(self) -> bool:
        """Whether every known event is encoded and every state stored."""
        return not (self._busy or len(self.queue) or self._keeper.in_flight)

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
        if model.reads_features and not self.queue.add_history(subject, model):
            self._metrics.state_cache.labels("state", "dropped").inc()

    def forget(self, subject: Subject) -> None:
        """Removes everything about the subject from this process."""
        self.queue.discard(subject)
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
            await self._store_states(self.queue.take_states())
        except StoreUnavailable as error:
            log.debug("write_behind_failed", reason=error.reason)
        except Exception as error:
            log.error("write_behind_broke", **logs.where(error))
        finally:
            self._busy = False

    async def _encode(self, subjects: dict[Subject, ServedModel]) -> None:
        """Encodes the histories of the subjects, in as few runs as their lengths allow."""
        encodings = [self._keeper.catch_up(profile) for profile in await self._profiles(subjects)]
        in_flight = [encoding for encoding in encodings if encoding is not None]
        if in_flight:
            await asyncio.wait(in_flight)

    async def _profiles(self, subjects: dict[Subject, ServedModel]) -> list[Profile]:
        """The profiles of the subjects, from the cache, or read from the store in one round trip a model."""
        profiles, missing = [], []
        for subject, model in subjects.items():
            cached = self._keeper.cache.get(subject, model)
            if cached is None:
                missing.append((subject, model))
            else:
                profiles.append(cached)
        for model in {model.version: model for _, model in missing}.values():
            wanted = [(subject, None) for subject, its_model in missing if its_model.version == model.version]
            epoch = self._keeper.erasure_epoch
            try:
                records = await self._store.read_many(wanted, _encoder(model))
            except StoreUnavailable:
                self._metrics.redis_errors.labels("read").inc()
                raise
            for (subject, _), record in zip(wanted, records, strict=True):
                assert record is not None  # noqa: S101 - nothing was known
                profiles.append(self._keeper.add(subject, model, record, epoch))
        return profiles

    async def _store_states(self, profiles: Sequence[Profile]) -> None:
        await asyncio.gather(*(self._keeper.advance_checkpoint(p) for p in profiles))
        for version in {_encoder(p.model) for p in profiles}:
            packed = [
                (p, entry) for p in profiles if _encoder(p.model) == version and (entry := _packed(p)) is not None
            ]
            bases = [p.base for p, _ in packed]
            try:
                stored = await self._store.write_states([entry for _, entry in packed], version)
            except StoreUnavailable:
                self._metrics.redis_errors.labels("write_state").inc()
                raise
            for (profile, _), base, written in zip(packed, bases, stored, strict=True):
                if written and base is not None and base.checkpoint is not None:
                    self._keeper.replace_base(profile, base, replace(base, checkpoint=None))
            self._metrics.state_cache.labels("state", "stored").inc(sum(stored))
            self._metrics.state_cache.labels("state", "lost").inc(len(stored) - sum(stored))


def _encoder(model: ServedModel) -> str:
    """The encoder version, which is part of the keys of states."""
    return model.encoder_version.name


def _packed(profile: Profile) -> tuple[Subject, StateWrite] | None:
    """The state with its checkpoint; None for a malformed state, which must not stop the others."""
    base, layout = profile.base, profile.model.engine.state_layout
    if base is None or profile.subject is None:
        return None
    try:
        checkpoint = None
        if layout.remembers_trimmed:
            new = base.checkpoint
            checkpoint = (
                CheckpointWrite() if new is None else CheckpointWrite(state_blob.pack(new, layout), new.last_score)
            )
        return profile.subject, StateWrite(base.version, state_blob.pack(base, layout), checkpoint)
    except ValueError as error:
        log.error("state_not_packed", **logs.where(error))
        return None
