"""What every replica reports of itself: which model it serves, and why that is not the chosen one."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from typing import Any, Protocol

import orjson

from service.common.errors import StoreUnavailable

# A replica whose last report is older than this is gone.
_GONE_S = 20.0


class ReplicaStore(Protocol):
    """The part of `service.store.store.Store` that the registry needs."""

    async def report_replica(self, replica: str, body: bytes) -> None:
        """Stores the report of a replica. Raises StoreUnavailable."""
        ...

    async def read_replicas(self) -> dict[str, bytes]:
        """Returns all reports by the name of their replica. Raises StoreUnavailable."""
        ...

    async def forget_replicas(self, *replicas: str) -> None:
        """Removes reports. Raises StoreUnavailable."""
        ...


class ReplicaRegistry:
    """Reports what this replica serves, and lists the reports of all. `now` is the clock that replicas share."""

    def __init__(self, store: ReplicaStore, now: Callable[[], float]) -> None:
        self._store, self._now = store, now
        self._name = f"{socket.gethostname()}:{os.getpid()}"

    async def report(self, active: str, fault: str | None) -> None:
        """Reports this replica.

        Args:
            active: The model version that it serves.
            fault: Why that is not the chosen one; None if it is.

        Raises:
            StoreUnavailable: Redis does not answer.
        """
        body = orjson.dumps({"active": active, "fault": fault, "at": self._now()})
        await self._store.report_replica(self._name, body)

    async def reports(self) -> list[dict[str, Any]]:
        """Returns the latest report of every replica, sorted by name, and forgets the replicas that are gone.

        Raises:
            StoreUnavailable: Redis does not answer.
        """
        now, alive, gone = self._now(), [], []
        for name, body in sorted((await self._store.read_replicas()).items()):
            with contextlib.suppress(orjson.JSONDecodeError, KeyError, TypeError):
                report = orjson.loads(body)
                if now - report["at"] > _GONE_S:
                    gone.append(name)
                else:
                    alive.append({"name": name, "active": str(report["active"]), "fault": report["fault"]})
        await self._store.forget_replicas(*gone)
        return alive

    async def leave(self) -> None:
        """Removes this replica's report when it ends."""
        with contextlib.suppress(StoreUnavailable):
            await self._store.forget_replicas(self._name)
