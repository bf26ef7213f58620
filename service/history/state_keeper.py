"""Encoder states: read with the history, brought up to date, each version of a log encoded once.

A state is a base when the version chain says so; then only the events after it are encoded, else the newest events up
to the receptive field. Whoever needs the state of a version first starts its encoding, and everybody else who needs
it waits for the same one. `service.history.write_behind` writes new states back, and encodes events that nobody has asked about yet.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from service.common.deadline import Clock, Deadline
from service.common.errors import ModelAttemptFailed, StateStale, StoreUnavailable
from service.common.metrics import Metrics
from service.engine.jobs import EncodeJob
from service.history.history import History
from service.history.profile import PendingEncoding, Profile, pending_encoding
from service.history.profile_cache import ProfileCache
from service.history.state_blob import VersionedState
from service.lifecycle.served_model import ServedModel
from service.store.records import Subject, UserRecord
from service.store.store import Store

_Key = tuple[Subject, str, str]

# Histories are prepared for another model in runs of so many, for so long.
_PREPARED_AT_ONCE = 8
_PREPARE_S = 5.0


class StateKeeper:
    """`encoded` is told of every profile whose base is new."""

    def __init__(
        self,
        store: Store,
        metrics: Metrics,
        cache: ProfileCache,
        *,
        history_cap: int,
        catch_up_s: float,
        h_only: bool = False,
        clock: Clock = time.monotonic,
    ) -> None:
        self.cache = cache
        self.history_cap = history_cap
        self.encoded: Callable[[Profile], None] = lambda _: None
        self._store = store
        self._metrics = metrics
        self._catch_up_s = catch_up_s
        self._h_only = h_only
        self._clock = clock
        self._flights: dict[_Key, asyncio.Task[VersionedState]] = {}
        self._erasure_epoch = 0
        self._carried: dict[Subject, Profile] = {}

    @property
    def under_way(self) -> int:
        """Encodings not yet finished."""
        return len(self._flights)

    async def read(self, subject: Subject, model: ServedModel, deadline: Deadline) -> Profile:
        """The history as it is now, in one round trip, bounded by the deadline and by the store's read time-out.

        Raises:
            StoreUnavailable: away, or too slow for this request.
        """
        known, erasures = self.cache.get(subject, model), self._erasure_epoch
        try:
            with self._metrics.stage("state"):
                version = "" if known is None else known.record.version
                record = await self._store.read_if_changed(subject, model.version, version, deadline.remaining())
        except StoreUnavailable:
            self._metrics.redis_errors.labels("read").inc()
            raise
        if record is None:
            assert known is not None  # noqa: S101 - only a known version can be unchanged
            self._metrics.state_cache.labels("memory", "hit").inc()
            return known
        self._metrics.state_cache.labels("memory", "miss" if known is None else "stale").inc()
        return self.keep(subject, model, record, erasures)

    @property
    def erasure_epoch(self) -> int:
        """How often something was forgotten here; to be noted before a read whose record is to be kept."""
        return self._erasure_epoch

    def keep(self, subject: Subject, model: ServedModel, record: UserRecord, erasures: int) -> Profile:
        """The profile of a record, put into the cache; not where something was erased while the record was read."""
        profile = Profile.of(subject, model, record)
        if erasures == self._erasure_epoch:
            self.cache.put(profile)
        return profile

    def pending(self, profile: Profile, events: History, *, from_state: bool = True) -> PendingEncoding | None:
        """What must be encoded before a list can be decoded; None where the state is there."""
        if from_state and profile.up_to_date and not events.inline:
            work = None
        else:
            work = pending_encoding(profile, events, history_cap=self.history_cap, from_state=from_state)
        if profile.record.events:
            outcome = "hit" if work is None else "rebuilt" if work.base is None else "extended"
            self._metrics.state_cache.labels("state", outcome).inc()
        return work

    async def hidden(
        self, profile: Profile, events: History, work: PendingEncoding | None, deadline: Deadline
    ) -> npt.NDArray[np.float32]:
        """h [d] after `events`.

        Raises:
            StateStale: not before the deadline; the encoding goes on behind the answer.
            ModelAttemptFailed: the encoder failed, or is overloaded.
        """
        if work is None:
            assert profile.base is not None  # noqa: S101 - nothing to encode means that there is a base
            return profile.base.h
        if not len(events):
            return profile.model.start_h
        if events.inline or profile.subject is None:
            state = await profile.model.encoder.submit(_job(work), deadline)
            return state.h
        flight = self.advance(profile, work)
        await asyncio.wait((flight,), timeout=deadline.remaining())
        if not flight.done():
            raise StateStale("the encoder takes too long")
        return flight.result().h

    def advance(self, profile: Profile, work: PendingEncoding) -> asyncio.Task[VersionedState]:
        """The encoding of a stored history: the one that is under way, or a new one."""
        assert profile.subject is not None  # noqa: S101 - it is stored
        key = (profile.subject, profile.record.version, profile.model.version)
        flight = self._flights.get(key)
        if flight is None:
            flight = asyncio.get_running_loop().create_task(self._encode(profile, work))
            self._flights[key] = flight
            flight.add_done_callback(lambda done: self._landed(key, done))
        return flight

    def catch_up(self, profile: Profile) -> asyncio.Task[VersionedState] | None:
        """The encoding of a stored history that nobody waits for; None where there is nothing to encode."""
        if profile.subject is None or not profile.record.events or profile.up_to_date:
            return None
        work = pending_encoding(profile, profile.history, history_cap=self.history_cap)
        return None if work is None else self.advance(profile, work)

    def forget(self, subject: Subject) -> None:
        """Nothing of the subject stays in this process."""
        self._erasure_epoch += 1
        self._carried.pop(subject, None)
        self.cache.drop(subject)

    async def prepare(self, model: ServedModel) -> None:
        """Encodes the histories that are kept here for a model that is about to be served, those used last first, so
        that its first requests do not all encode theirs. `taken_over` keeps them. Takes half of the encoder's time, and
        no longer than _PREPARE_S."""
        self._carried = {}
        until = self._clock() + _PREPARE_S
        known = [Profile(p.subject, model, p.record) for p in self.cache.profiles()[::-1] if p.record.version]
        for first in range(0, len(known), _PREPARED_AT_ONCE):
            began = self._clock()
            if began >= until:
                break
            await asyncio.gather(*map(self._prepare, known[first : first + _PREPARED_AT_ONCE]))
            await asyncio.sleep(self._clock() - began)

    async def _prepare(self, profile: Profile) -> None:
        """Where it fails, the user's next request encodes."""
        assert profile.subject is not None  # noqa: S101 - it was kept
        erasures = self._erasure_epoch
        work = pending_encoding(profile, profile.history, history_cap=self.history_cap)
        if work is None:
            return
        with contextlib.suppress(ModelAttemptFailed):
            deadline = Deadline.after(self._catch_up_s, self._clock)
            state = await profile.model.encoder.submit(_job(work), deadline)
            record = profile.record
            profile.base = VersionedState.of(state, record.version, record.events[-1].score, h_only=self._h_only)
            if erasures == self._erasure_epoch:
                self._carried[profile.subject] = profile

    def taken_over(self) -> None:
        """Another model, or another catalogue, is served: what was kept for the former one goes, and what was prepared
        for this one is kept and stored."""
        self.cache.clear()
        carried, self._carried = self._carried, {}
        for profile in reversed(carried.values()):  # the latest used last, as the cache has them
            self.cache.put(profile)
            self.encoded(profile)

    async def close(self) -> None:
        """Waits for what is under way; each encoding has its own deadline."""
        if self._flights:
            await asyncio.wait(set(self._flights.values()))

    async def _encode(self, profile: Profile, work: PendingEncoding) -> VersionedState:
        state = await profile.model.encoder.submit(_job(work), Deadline.after(self._catch_up_s, self._clock))
        record = profile.record
        base = profile.base = VersionedState.of(state, record.version, record.events[-1].score, h_only=self._h_only)
        assert profile.subject is not None  # noqa: S101
        kept = self.cache.get(profile.subject, profile.model)
        if kept is not None and kept.record.version == record.version:
            kept.base = base
            self.cache.put(kept)  # it has grown; and one that was dropped meanwhile stays out
        if record.version:  # a log whose version was lost cannot vouch for a state
            self.encoded(profile)
        return base

    def _landed(self, key: _Key, flight: asyncio.Task[VersionedState]) -> None:
        del self._flights[key]
        if not flight.cancelled():
            flight.exception()  # looked at, so that a failure nobody waited for is not reported as lost


def _job(work: PendingEncoding) -> EncodeJob:
    state = None if work.base is None else work.base.state
    return EncodeJob(state, work.events.item, work.events.type, work.events.time_ms, work.from_start)
