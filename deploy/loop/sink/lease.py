"""One sink at a time: the lease, renewed in the background."""

from __future__ import annotations

import asyncio
import os
import platform
import time

from service.common import logs
from service.common.errors import StoreUnavailable
from service.store.streams.stream_group import StreamGroup

log = logs.get(__name__)

_RENEWALS = 3.0


def own_name() -> str:
    """Returns the name of this process among sinks: its host, and its number there."""
    return f"{platform.node()}/{os.getpid()}"


class Lease:
    """Whether this process may read."""

    def __init__(self, group: StreamGroup, seconds: float) -> None:
        self._group, self._seconds = group, seconds
        self._until = 0.0
        self._holder = ""

    @property
    def held(self) -> bool:
        """Whether no other process may act now."""
        return time.monotonic() < self._until

    async def take(self) -> bool:
        """Tries to take or renew it.

        Raises:
            StoreUnavailable: Nobody knows who has it.
        """
        asked = time.monotonic()
        holder = await self._group.lease(self._seconds)
        if holder and _is_gone(holder):
            holder = await self._group.lease(self._seconds, gone=holder)
        if holder:
            self._until = 0.0
            if holder != self._holder:
                log.warning("sink_stands_by", reader=holder, detail="another sink reads these streams")
        else:
            self._until = asked + self._seconds
        self._holder = holder
        return not holder

    async def keep(self) -> None:
        """Renews it until cancelled."""
        while True:
            await asyncio.sleep(self._seconds / _RENEWALS)
            if self.held:
                try:
                    await self.take()
                except StoreUnavailable as error:
                    log.debug("lease_not_renewed", reason=error.reason)

    async def give_back(self) -> None:
        """Gives it back, so that a successor need not wait; if Redis is away it expires."""
        self._until = 0.0
        try:
            await self._group.release()
        except StoreUnavailable as error:
            log.debug("lease_expires", reason=error.reason)


def _is_gone(holder: str) -> bool:
    """Whether a holder was a process of this host that runs no more. Containers start each with the same number."""
    host, _, number = holder.rpartition("/")
    if host != platform.node() or not number.isdigit():
        return False
    if int(number) == os.getpid():
        return True
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
