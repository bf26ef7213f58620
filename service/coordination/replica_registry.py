"""What every replica says of itself: which model it serves, and why that is not the one that was chosen."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from typing import Any, Protocol

import orjson

from service.common.errors import StoreUnavailable

# A replica that was silent for so long is gone.
_GONE_S = 20.0


class ReplicaStore(Protocol):
    """The part of `service.store.store.Store` by which replicas hear of each other."""

    async def report_replica(self, replica: str, body: bytes) -> None: ...
    async def read_replicas(self) -> dict[str, bytes]: ...
    async def forget_replicas(self, *replicas: str) -> None: ...


class Replicas:
    """`now` is the clock that replicas share."""

    def __init__(self, store: ReplicaStore, now: Callable[[], float]) -> None:
        self._store, self._now = store, now
        self._name = f"{socket.gethostname()}:{os.getpid()}"

    async def report(self, active: str, fault: str | None) -> None:
        """This replica's word. Raises StoreUnavailable."""
        await self._store.report_replica(
            self._name, orjson.dumps({"active": active, "fault": fault, "at": self._now()})
        )

    async def listed(self) -> list[dict[str, Any]]:
        """The latest word of each, by name. Raises StoreUnavailable."""
        now, found, gone = self._now(), [], []
        for name, body in sorted((await self._store.read_replicas()).items()):
            with contextlib.suppress(orjson.JSONDecodeError, KeyError, TypeError):
                word = orjson.loads(body)
                if now - word["at"] > _GONE_S:
                    gone.append(name)
                else:
                    found.append({"name": name, "active": str(word["active"]), "fault": word["fault"]})
        await self._store.forget_replicas(*gone)
        return found

    async def leave(self) -> None:
        """This replica ends."""
        with contextlib.suppress(StoreUnavailable):
            await self._store.forget_replicas(self._name)
