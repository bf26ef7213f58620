"""Encoder states: read with the history, brought up to date, each version of a log encoded once.

A state can be extended when the version chain of the log says so. Then only the events after it are encoded; otherwise
the newest events up to the receptive field are, or those after a checkpoint (`service.history.trim_checkpoint`). The
first request that needs the state of a log version starts its encoding, and all others wait for the same one. New
states are queued for `service.history.write_behind`, which stores them, and which encodes events before a request asks
for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from service.common.deadline import Clock, Deadline
from service.common.errors import DeadlineExceeded, ModelAttemptFailed, StateStale, StoreUnavailable
from service.history.checkpoint_keeper import CheckpointKeeper
from service.history.history import History
from service.history.profile import PendingEncoding, Profile, pending_encoding
from service.history.profile_cache import ProfileCache
from service.history.state_blob import VersionedState
from service.history.write_queue import WriteQueue
from service.lifecycle.served_model import ServedModel
from service.metrics.service_metrics import Metrics
from service.store.records import Subject, UserRecord
from service.store.store import Store
from service.tracing import tracing

# Subject, version of the log with the stamp of the features, version of the model.
_Key = tuple[Subject, str, str]

# Before a model switch, cached histories are encoded in runs of this many, for at most this long.
_PREPARE_BATCH = 8
_PREPARE_S = 5.0


class StateKeeper:
    """Reads histories and keeps their encoder states current. Profiles with a new state are put into the write queue.

    Attributes:
        cache: The profiles kept in this process.
        history_cap: Events that a log keeps.
    """

    def __init__(
        self,
        store: Store,
        metrics: Metrics,
        cache: ProfileCache,
        queue: WriteQueue,
        *,
        history_cap: int,
        catch_up_s: float,
        h_only: bool = False,
        clock: Clock = time.monotonic,
    ) -> None:
        self.cache = cache
        self.history_cap = history_cap
        self._store = store
        self._metrics = metrics
        self._queue = queue
        self._checkpoints = CheckpointKeeper(store, metrics, history_cap=history_cap)
        self._catch_up_s = catch_up_s
        self._h_only = h_only
        self._clock = clock
        self._encodings: dict[_Key, asyncio.Task[VersionedState]] = {}
        self._erasure_epoch = 0
        self._prepared: dict[Subject, tuple[Profile, bool]] = {}  # with whether its state is new

    @property
    def in_flight(self) -> int:
        """Number of encodings that have not finished."""
        return len(self._encodings)

    @property
    def erasure_epoch(self) -> int:
        """Number of erasures seen here. Note it before a read: a record read in an earlier epoch is not cached."""
        return self._erasure_epoch

    async def read(self, subject: Subject, model: ServedModel, deadline: Deadline) -> Profile:
        """Reads the current history in one round trip.

        Waits until the deadline, or for the store's read time-out if that is shorter.

        Raises:
            StoreUnavailable: Redis is not available, or did not answer in time.
        """
        cached, epoch = self.cache.get(subject, model), self._erasure_epoch
        if cached is not None and cached.subject is not None:
            subject = cached.subject  # the same, with its tag made
        try:
            with self._metrics.stage("state", tracing.exemplar()), tracing.span("store", deadline, "read"):
                known = None if cached is None else cached.record
                record = await self._store.read_if_changed(
                    subject, model.encoder_version.name, known, deadline.remaining()
                )
        except StoreUnavailable:
            self._metrics.redis_errors.labels("read").inc()
            raise
        if record is None:
            assert cached is not None  # noqa: S101 - only a cached profile can be unchanged
            self._metrics.state_cache.labels("memory", "hit").inc()
            return cached
        self._metrics.state_cache.labels("memory", "miss" if cached is None else "stale").inc()
        return self.add(subject, model, record, epoch)

    def add(self, subject: Subject, model: ServedModel, record: UserRecord, epoch: int) -> Profile:
        """Builds the profile of a record, and caches it unless something was erased since the `epoch` of its read."""
        if record.missing is not None:
            self._metrics.histories_missing.labels(record.missing).inc()
        profile = Profile.of(subject, model, record)
        if epoch == self._erasure_epoch:
            self.cache.put(profile)
        return profile

    async def bring_up_to_date(
        self,
        profile: Profile,
        history: History,
        deadline: Deadline,
        *,
        fits: Callable[[int], bool],
        from_state: bool = True,
    ) -> npt.NDArray[np.float32]:
        """Returns the hidden state after `history`, encoding what its stored state lacks.

        Whatever the request cannot wait for is encoded in the background, so that the next request finds it.

        Args:
            profile: The stored history and its newest state.
            history: The profile's own history, or one with the events and features of the request.
            deadline: When the hidden state must be there; what follows the encoding is already subtracted.
            fits: Whether this many events can be encoded in time. Called only if there is something to encode.
            from_state: False ignores the stored state and encodes the raw events.

        Returns:
            [d] hidden state to decode from.

        Raises:
            StateStale: The encoding does not fit the deadline, or did not end before it.
            ModelAttemptFailed: The encoder failed or is overloaded.
        """
        pending = self._pending(profile, history, from_state=from_state)
        if pending is None:
            assert profile.base is not None  # noqa: S101 - with nothing to encode there is a base
            return profile.base.h
        if history.inline:
            self.catch_up(profile)  # the state after the request's own events is not kept
        if not fits(len(pending.events)):
            self.catch_up(profile)
            raise StateStale("encoding is predicted to take too long")
        empty = self._is_empty(profile, pending)
        if empty and pending.user is None:
            return profile.model.start_h
        try:
            if history.inline or profile.subject is None or empty:
                if from_state:
                    pending = await self._checkpoints.resumed(profile, history, pending, deadline)
                return (await profile.model.encoder.submit(pending.job(), deadline)).h
            encoding = self._start(profile, pending)
            await asyncio.wait((encoding,), timeout=deadline.remaining())
            if encoding.done():
                return encoding.result().h
        except DeadlineExceeded as late:
            self.catch_up(profile)
            raise StateStale("the encoder took too long", tried=True) from late
        except StoreUnavailable as error:
            raise StateStale("the checkpoint of the state cannot be read") from error
        raise StateStale("the encoder is still running", tried=True)

    def catch_up(self, profile: Profile) -> asyncio.Task[VersionedState] | None:
        """Starts the encoding of a stored history in the background; returns None if there is nothing to encode."""
        if profile.subject is None or not profile.record.events or profile.up_to_date:
            return None
        pending = pending_encoding(profile, profile.history, history_cap=self.history_cap)
        if pending is None:
            assert profile.base is not None  # noqa: S101 - with nothing to encode there is a base
            # The log has new searches, which the encoder does not read. Labelled anew, the state stays valid when the
            # log trims them.
            last = profile.record.events[-1].score
            self._made(profile, replace(profile.base, version=profile.record.version, last_score=last))
            return None
        return None if self._is_empty(profile, pending) else self._start(profile, pending)

    def forget(self, subject: Subject) -> None:
        """Removes everything about the subject from this process."""
        self._erasure_epoch += 1
        self._prepared.pop(subject, None)
        self.cache.drop(subject)

    async def prepare(self, model: ServedModel) -> None:
        """Encodes the cached histories for a model that is about to be served, the most recently used first.

        Its first requests then need not all encode theirs. States that its encoder would make as they are stay.
        `model_replaced` puts the result into the cache. Uses half of the encoder's time, for at most `_PREPARE_S`
        seconds.
        """
        self._prepared = {}
        until = self._clock() + _PREPARE_S
        profiles = [profile.under(model) for profile in self.cache.profiles()[::-1] if profile.record.version]
        for first in range(0, len(profiles), _PREPARE_BATCH):
            began = self._clock()
            if began >= until:
                break
            await asyncio.gather(*map(self._prepare, profiles[first : first + _PREPARE_BATCH]))
            await asyncio.sleep(self._clock() - began)

    async def _prepare(self, profile: Profile) -> None:
        """Encodes one history; if that fails, the user's next request encodes it."""
        assert profile.subject is not None  # noqa: S101 - it was cached
        epoch = self._erasure_epoch
        pending = pending_encoding(profile, profile.history, history_cap=self.history_cap)
        if pending is None or self._is_empty(profile, pending):
            self._prepared[profile.subject] = (profile, False)
            return
        with contextlib.suppress(ModelAttemptFailed):
            profile.base = await self._encoded(profile, pending)
            if epoch == self._erasure_epoch:
                self._prepared[profile.subject] = (profile, True)

    def model_replaced(self) -> None:
        """Drops the profiles of the former model or catalogue; caches and stores those prepared for the new one."""
        self.cache.clear()
        prepared, self._prepared = self._prepared, {}
        for profile, encoded in reversed(prepared.values()):  # the most recently used last, as the cache orders them
            self.cache.put(profile)
            if encoded:
                self._queue.add_state(profile)

    async def drain(self) -> None:
        """Waits for the encodings in flight; each has its own deadline."""
        if self._encodings:
            await asyncio.wait(set(self._encodings.values()))

    def _pending(self, profile: Profile, history: History, *, from_state: bool) -> PendingEncoding | None:
        """What must be encoded before a list can be decoded; counted as a hit or a miss of the state cache."""
        if from_state and profile.up_to_date and not history.inline:
            pending = None
        else:
            pending = pending_encoding(profile, history, history_cap=self.history_cap, from_state=from_state)
        if profile.record.events:
            outcome = "hit" if pending is None else "rebuilt" if pending.base is None else "extended"
            self._metrics.state_cache.labels("state", outcome).inc()
        return pending

    def _is_empty(self, profile: Profile, pending: PendingEncoding) -> bool:
        """Whether nobody knows of an event to encode: neither the log nor a checkpoint."""
        return not len(pending.events) and not self._checkpoints.may_remember(profile)

    def _start(self, profile: Profile, pending: PendingEncoding) -> asyncio.Task[VersionedState]:
        """The encoding of a stored history: the one in flight, or a new one."""
        assert profile.subject is not None  # noqa: S101 - it is stored
        key = (profile.subject, profile.record.version + profile.record.features.stamp, profile.model.version)
        encoding = self._encodings.get(key)
        if encoding is None:
            encoding = asyncio.get_running_loop().create_task(self._encode(profile, pending))
            self._encodings[key] = encoding
            encoding.add_done_callback(lambda done: self._finished(key, done))
        return encoding

    async def _encode(self, profile: Profile, pending: PendingEncoding) -> VersionedState:
        return self._made(profile, await self._encoded(profile, pending))

    def _made(self, profile: Profile, base: VersionedState) -> VersionedState:
        """Takes a new base of a stored history over, in the cache too, and queues it to be stored."""
        profile.base = base
        assert profile.subject is not None  # noqa: S101 - it is stored
        cached = self.cache.get(profile.subject, profile.model)
        same_user = cached is not None and cached.record.features.stamp == profile.record.features.stamp
        if cached is not None and same_user and cached.record.version == base.version:
            cached.base = base
            self.cache.put(cached)  # it has grown; a profile that was dropped meanwhile stays out
        if base.version:  # a log whose version was lost cannot vouch for a state
            self._queue.add_state(profile)
        return base

    async def _encoded(self, profile: Profile, pending: PendingEncoding) -> VersionedState:
        deadline = self._catch_up_deadline()
        pending = await self._checkpoints.resumed(profile, profile.history, pending, deadline)
        state = await profile.model.encoder.submit(pending.job(), deadline)
        events, step = profile.record.events, profile.encoder_step()
        made = VersionedState.of(state, profile.record.version, events[-1].score, step, h_only=self._h_only)
        if not profile.model.engine.state_layout.remembers_trimmed:
            return made
        if pending.base is None:
            return made if pending.from_start else replace(made, began=events[0].score)
        base = pending.base
        return replace(made, since=base.since, began=base.began, checkpoint=base.checkpoint)

    async def advance_checkpoint(self, profile: Profile) -> None:
        """Makes the next checkpoint of a profile whose state is about to be stored, if one is due.

        If that fails, the user's next event tries again.
        """
        made = profile.base
        if made is None:
            return
        with contextlib.suppress(ModelAttemptFailed, StoreUnavailable):
            after = await self._checkpoints.advanced(profile, made, self._catch_up_deadline())
            if after is not None:
                self.replace_base(profile, made, replace(made, since=after.last_score, checkpoint=after))

    def replace_base(self, profile: Profile, before: VersionedState, after: VersionedState) -> None:
        """Puts a state with other labels in the place of a profile's base, in the cache too."""
        cached = None if profile.subject is None else self.cache.get(profile.subject, profile.model)
        for one in (profile, cached):
            if one is not None and one.base is before:
                one.base = after
        if cached is not None:
            self.cache.measure(cached)

    def _catch_up_deadline(self) -> Deadline:
        return Deadline.after(self._catch_up_s, self._clock)

    def _finished(self, key: _Key, encoding: asyncio.Task[VersionedState]) -> None:
        del self._encodings[key]
        if not encoding.cancelled():
            encoding.exception()  # retrieved, so that a failure nobody waited for is not logged as lost
