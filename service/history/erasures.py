"""Drops histories from this process that another replica has erased, or merged into a user who logged in.

Erasures are published by Redis. A replica that was not subscribed at that moment misses them, so after each new
subscription every cached history is compared with the store: those that are gone or have changed are dropped. Where
Redis does not let this user subscribe, the same is done every few seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from service.common import logs
from service.common.errors import StoreUnavailable
from service.history.state_keeper import StateKeeper
from service.history.write_behind import WriteBehind
from service.store.records import Subject, UserRecord
from service.store.store import Store

log = logs.get(__name__)

_PAUSE_S = 0.5
# How often the cached histories are compared with the store where the user of Redis may not subscribe.
_POLL_S = 5.0
# Histories checked in one round trip. Of an unchanged history only the version is transferred.
_BATCH = 64


class Erasures:
    """Follows the erasures of all replicas; start `run` as a background task.

    Attributes:
        checked: How often the whole cache was compared with the store.
    """

    def __init__(
        self, store: Store, write_behind: WriteBehind, states: StateKeeper, *, on_checked: Callable[[], object]
    ) -> None:
        """`on_checked` is called when the cached histories are known to be those that are stored."""
        self._on_checked = on_checked
        self._store = store
        self._write_behind = write_behind
        self._states = states
        self.checked = 0

    async def run(self) -> None:
        """Follows erasures until cancelled."""
        while True:
            pause_s = _PAUSE_S
            try:
                async with contextlib.aclosing(self._store.erasures()) as erasures:
                    async for subject in erasures:
                        if subject is None:
                            await self._check()
                        else:
                            self._write_behind.forget(subject)
                        del subject  # else the erased id would stay in memory until the next erasure
            except StoreUnavailable as error:
                if error.cause == "no_permission":
                    pause_s = _POLL_S
                    with contextlib.suppress(StoreUnavailable):
                        await self._check()
            await asyncio.sleep(pause_s)

    async def _check(self) -> None:
        """Drops every cached history that differs from the stored one.

        Raises:
            StoreUnavailable: The check is repeated after the next subscription.
        """
        cached = self._states.cache.profiles()
        for first in range(0, len(cached), _BATCH):
            batch = cached[first : first + _BATCH]
            known: list[tuple[Subject, UserRecord | None]] = [
                (profile.subject, profile.record) for profile in batch if profile.subject is not None
            ]
            records = await self._store.read_many(known, batch[0].model.encoder_version.name)
            for (subject, _), record in zip(known, records, strict=True):
                if record is not None and not record.version:
                    self._write_behind.forget(subject)
                elif record is not None:
                    self._states.cache.drop(subject)
        self._on_checked()
        self.checked += 1
