"""Notices that another server has become the one to write to, and leaves the connections to the old one.

An open connection stays with its server when that one is demoted to a replica: it refuses every write until somebody
closes it. So when a server says that it is a replica, or when the Sentinels name another master, all connections are
left, and new ones look the address up again.

During a planned fail-over the old master goes on accepting writes although a replica has been promoted, and they are
lost. So writes are held back from the moment in which a Sentinel begins one until the new master is known.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from redis.asyncio import ConnectionPool
from redis.asyncio.sentinel import SentinelConnectionPool

from service.common import logs
from service.process.background import being_cancelled
from service.store.redis.cluster_client import ClusterClient
from service.store.redis.redis_causes import Cause

log = logs.get(__name__)

# Where the address still leads to a replica, connections are not renewed more often than this.
_PAUSE_S = 0.5
# How often the Sentinels are asked for the master. While it is the old one, acknowledged events can be lost.
_ASK_S = 0.2
# A fail-over that takes longer to promote a replica is not waited for: the old master may stay.
_HOLD_S = 5.0
_HEAR_AGAIN_S = 1.0
_BEGINS = b"+elected-leader"
_ENDS = (b"+switch-master", b"+failover-end", b"-failover-abort-no-good-slave", b"-failover-abort-slave-timeout")
_EVENTS = (_BEGINS, b"+promoted-slave", *_ENDS)
_DOUBTFUL: frozenset[Cause] = frozenset({"read_only", "disconnected", "refused", "timeout"})


class RoleChanges:
    """Follows which server to write to.

    Attributes:
        count: How often the connections were left. A subscription from before belongs to the old server.
    """

    def __init__(self, client: Any, leave_reads: Callable[[], None]) -> None:
        """Follows the servers of a client.

        Args:
            client: A redis-py client. That of a cluster follows by itself, and tells when other nodes are primaries.
            leave_reads: Makes the next read connect anew.
        """
        pool = getattr(client, "connection_pool", None)
        self._pool: ConnectionPool | None = pool if isinstance(pool, ConnectionPool) else None
        self._leave_reads = leave_reads
        self._doubt = asyncio.Event()
        self._next_try = 0.0
        self._hold_until = 0.0
        self._leaving: asyncio.Task[None] | None = None
        self.count = 0
        if isinstance(client, ClusterClient):
            client.nodes.changed = self._changed

    def failed(self, cause: Cause) -> None:
        """Takes note of a failed command."""
        if cause in _DOUBTFUL:
            self._doubt.set()
        loop = asyncio.get_running_loop()
        if cause == "read_only" and self._pool is not None and loop.time() >= self._next_try:
            self._next_try = loop.time() + _PAUSE_S
            self._leave()

    def _changed(self) -> None:
        """Takes note that a cluster has other primaries: the node that is listened to may be cut off from them."""
        self.count += 1

    @property
    def under_way(self) -> bool:
        """Whether a fail-over has begun, and the new master is not known yet: what is written now may be lost."""
        return asyncio.get_running_loop().time() < self._hold_until

    async def follow(self) -> None:
        """Follows the Sentinels until cancelled: asks them for the master, and listens to what they do."""
        pool = self._pool
        if not isinstance(pool, SentinelConnectionPool):
            await asyncio.Event().wait()  # nothing to follow
            raise AssertionError
        async with asyncio.TaskGroup() as group:
            group.create_task(self._ask(pool))
            for sentinel in tuple(pool.sentinel_manager.sentinels):
                group.create_task(self._hear(sentinel, pool.service_name))

    async def _ask(self, pool: SentinelConnectionPool) -> None:
        known = pool.master_address
        while True:
            self._doubt.clear()
            with contextlib.suppress(Exception):  # no Sentinel answers: the commands tell
                await pool.get_master_address()  # type: ignore[no-untyped-call]
            if pool.master_address != known:
                if known is not None and pool.master_address is not None:
                    log.warning("redis_master_changed", host=pool.master_address[0], port=pool.master_address[1])
                    self._leave()
                known = pool.master_address
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_ASK_S):
                    await self._doubt.wait()
                await asyncio.sleep(_ASK_S / 10)

    async def _hear(self, sentinel: Any, service: str) -> None:
        """Listens to one Sentinel: only the one that leads a fail-over tells of its steps."""
        while True:
            pubsub = sentinel.pubsub()
            with contextlib.suppress(Exception):  # it is away, or does not let this user subscribe: it is asked anyway
                await pubsub.subscribe(*_EVENTS)
                while not being_cancelled():
                    message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=1.0)
                    if message is not None:
                        self._told(message["channel"], message["data"].split(), service.encode())
            with contextlib.suppress(Exception):
                await pubsub.aclose()
            await asyncio.sleep(_HEAR_AGAIN_S)

    def _told(self, event: bytes, words: list[bytes], service: bytes) -> None:
        """Takes note of an event; `words` are its instance: `master NAME …`, `slave … @ NAME …`, or `NAME …`."""
        if service not in words:
            return
        if event == _BEGINS:
            self._hold_until = asyncio.get_running_loop().time() + _HOLD_S
            log.warning("redis_fail_over_begins", detail="writes are refused until the new master is known")
        elif event in _ENDS and event != b"+switch-master":
            self._hold_until = 0.0
        self._doubt.set()

    async def close(self) -> None:
        """Waits until the connections that are being left are closed."""
        if self._leaving is not None:
            await asyncio.wait((self._leaving,))

    def _leave(self) -> None:
        self.count += 1
        self._hold_until = 0.0
        self._leave_reads()
        if self._pool is not None and (self._leaving is None or self._leaving.done()):
            self._leaving = asyncio.create_task(self._renew(self._pool))

    async def _renew(self, pool: ConnectionPool) -> None:
        """Closes idle connections at once, and the others when their command has ended."""
        for _ in range(2):  # a connection may be taken from the pool between the two steps
            with contextlib.suppress(Exception):
                await pool.update_active_connections_for_reconnect()  # type: ignore[no-untyped-call]
                await pool.disconnect(inuse_connections=False)
