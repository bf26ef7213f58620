"""What happens behind the acknowledgement of an event: its user's state is advanced and stored.

One loop takes the users whose events came in since its last turn, reads those histories it does not have, encodes them
together, and writes the new states back, compare-and-set, in one round trip. Nothing waits for it: a `/recommend`
that arrives first encodes on its own, and a user for whom there is no room is left to the next request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TypeVar

from service.common import logs
from service.common.errors import StoreUnavailable
from service.common.metrics import Metrics
from service.history import state_blob
from service.history.profile import Profile, extended
from service.history.state_keeper import StateKeeper
from service.lifecycle.served_model import ServedModel
from service.store.records import AppendResult, NewEvent, Subject, UserRecord
from service.store.store import Store

log = logs.get(__name__)

V = TypeVar("V")

# Users of one turn. Their histories and states are handled on the event loop, about 0.2 ms each.
_TURN = 16
_EMPTY = UserRecord("", ())


class WriteBehind:
    """Advances states and stores them. At most `most` users wait; of those beyond, nothing is lost but time."""

    def __init__(self, keeper: StateKeeper, store: Store, metrics: Metrics, *, most: int) -> None:
        self._keeper = keeper
        self._store = store
        self._metrics = metrics
        self._most = most
        self._behind: dict[Subject, ServedModel] = {}
        self._unwritten: dict[Subject, Profile] = {}
        self._busy = False
        self._wake = asyncio.Event()
        keeper.encoded = self.write

    @property
    def idle(self) -> bool:
        """Whether every event it knows of is encoded and every state stored."""
        return not (self._busy or self._behind or self._unwritten or self._keeper.in_flight)

    @property
    def erasure_epoch(self) -> int:
        """How often something was forgotten here; to be noted before events are written."""
        return self._keeper.erasure_epoch

    def appended(
        self,
        subject: Subject,
        model: ServedModel,
        events: Sequence[NewEvent],
        result: AppendResult,
        erasures: int,
    ) -> None:
        """Events of the subject were written, and its log is now at `result.version`.

        Where the former log is known, the new one is too, without reading it; not where something was erased since
        `erasures` was noted, because it may have been this.
        """
        known = self._keeper.cache.get(subject, model)
        former = _EMPTY if known is None else known.record
        if former.version == result.version:
            return
        record = extended(former, events, subject, self._keeper.history_cap)
        if record is not None and record.version == result.version and erasures == self.erasure_epoch:
            self._keeper.cache.put(Profile(subject, model, record, None if known is None else known.base))
        else:
            self._keeper.cache.drop(subject)  # it must be read again
        if subject not in self._behind and len(self._behind) >= self._most:
            self._metrics.state_cache.labels("state", "dropped").inc()
            return
        self._behind[subject] = model
        self._wake.set()

    def write(self, profile: Profile) -> None:
        """A profile's new base is to be stored."""
        assert profile.subject is not None  # noqa: S101 - it is stored
        self._unwritten[profile.subject] = profile
        self._wake.set()

    def forget(self, subject: Subject) -> None:
        """Nothing of the subject stays in this process."""
        self._behind.pop(subject, None)
        self._unwritten.pop(subject, None)
        self._keeper.forget(subject)

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            if not (self._behind or self._unwritten):
                await self._wake.wait()
            self._wake.clear()
            await self._turn()

    async def drain(self, timeout_s: float) -> None:
        """What is waiting is encoded and stored, as far as the time allows. The loop must have ended."""
        try:
            async with asyncio.timeout(timeout_s):
                while self._behind or self._unwritten:
                    await self._turn()
                await self._keeper.drain()
                while self._unwritten:
                    await self._turn()
        except TimeoutError:
            log.warning("states_not_stored", users=len(self._behind) + len(self._unwritten))

    async def _turn(self) -> None:
        self._busy = True
        try:
            await self._advance(_take(self._behind))
            await self._store_states(list(_take(self._unwritten).values()))
        except StoreUnavailable as error:
            log.debug("write_behind_failed", reason=error.reason)
        except Exception as error:
            log.error("write_behind_broke", **logs.where(error))
        finally:
            self._busy = False

    async def _advance(self, subjects: dict[Subject, ServedModel]) -> None:
        """Encodes the histories of the subjects; in as few runs as their lengths allow."""
        flights = [self._keeper.catch_up(profile) for profile in await self._profiles(subjects)]
        under_way = [flight for flight in flights if flight is not None]
        if under_way:
            await asyncio.wait(under_way)

    async def _profiles(self, subjects: dict[Subject, ServedModel]) -> list[Profile]:
        """As far as they are known, else as they are stored."""
        found, unknown = [], []
        for subject, model in subjects.items():
            profile = self._keeper.cache.get(subject, model)
            if profile is None:
                unknown.append((subject, model))
            else:
                found.append(profile)
        for model in {model.version: model for _, model in unknown}.values():
            wanted = [(subject, "") for subject, its in unknown if its.version == model.version]
            erasures = self._keeper.erasure_epoch
            try:
                records = await self._store.read_many(wanted, model.version)
            except StoreUnavailable:
                self._metrics.redis_errors.labels("read").inc()
                raise
            for (subject, _), record in zip(wanted, records, strict=True):
                assert record is not None  # noqa: S101 - no version is the empty one
                found.append(self._keeper.add(subject, model, record, erasures))
        return found

    async def _store_states(self, profiles: Sequence[Profile]) -> None:
        for version in {profile.model.version for profile in profiles}:
            batch = [entry for p in profiles if p.model.version == version and (entry := _packed(p)) is not None]
            try:
                stored = await self._store.write_states(batch, version)
            except StoreUnavailable:
                self._metrics.redis_errors.labels("write_state").inc()
                raise
            self._metrics.state_cache.labels("state", "stored").inc(sum(stored))
            self._metrics.state_cache.labels("state", "lost").inc(len(stored) - sum(stored))


def _packed(profile: Profile) -> tuple[Subject, str, bytes] | None:
    """(subject, version, blob); None for a state that does not fit together, which must not stop the others."""
    base = profile.base
    if base is None or profile.subject is None:
        return None
    try:
        return profile.subject, base.version, state_blob.pack(base, profile.model.engine.state_shape)
    except ValueError as error:
        log.error("state_not_packed", **logs.where(error))
        return None


def _take(waiting: dict[Subject, V]) -> dict[Subject, V]:
    """Removes and returns the first users of a turn."""
    taken = {subject: waiting[subject] for subject, _ in zip(list(waiting), range(_TURN), strict=False)}
    for subject in taken:
        del waiting[subject]
    return taken
