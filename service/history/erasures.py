"""What was erased by another replica, or moved by it to a user who logged in, is forgotten by this one, too.

Erasures are published. Whoever was not listening at that moment may have missed some, so with each new subscription
every history that is kept here is asked for: one that is gone is dropped, and so is one that is another by now.
"""

from __future__ import annotations

import asyncio
import contextlib

from service.common import logs
from service.common.errors import StoreUnavailable
from service.history.state_keeper import StateKeeper
from service.history.write_behind import WriteBehind
from service.store.records import Subject
from service.store.store import Store

log = logs.get(__name__)

_PAUSE_S = 0.5
# Histories of one round trip. Nothing but their versions travels where they are as they were.
_AT_ONCE = 64


class Erasures:
    """Run `run` beside the service."""

    def __init__(self, store: Store, behind: WriteBehind, states: StateKeeper) -> None:
        self._store = store
        self._behind = behind
        self._states = states
        self.checked = 0
        """How often everything that is kept was compared with what is stored."""

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            with contextlib.suppress(StoreUnavailable):
                async with contextlib.aclosing(self._store.erasures()) as erasures:
                    async for subject in erasures:
                        if subject is None:
                            await self._check()
                        else:
                            self._behind.forget(subject)
                        del subject  # it would be known here until the next erasure
            await asyncio.sleep(_PAUSE_S)

    async def _check(self) -> None:
        """Drops what is not stored as it is kept. Raises StoreUnavailable; the next subscription checks again."""
        kept = self._states.cache.profiles()
        for first in range(0, len(kept), _AT_ONCE):
            part = kept[first : first + _AT_ONCE]
            wanted: list[tuple[Subject, str]] = [(p.subject, p.record.version) for p in part if p.subject is not None]
            records = await self._store.read_many(wanted, part[0].model.version)
            for (subject, _), record in zip(wanted, records, strict=True):
                if record is not None and not record.version:
                    self._behind.forget(subject)
                elif record is not None:
                    self._states.cache.drop(subject)
        self.checked += 1
