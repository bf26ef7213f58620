"""The redis-py client of a URL: a single server, a Cluster, or the master behind a Sentinel."""

from __future__ import annotations

import socket
from typing import Any

from redis.asyncio import ConnectionPool, Redis, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from service.common.errors import SettingsError
from service.store.redis.cluster_client import ClusterClient
from service.store.redis.redis_url import RedisUrl, parse_url

Client = Redis | ClusterClient

# On connections that nobody reads from (in the pool, and the subscriptions), a peer that vanished without a FIN is
# noticed within 15 s.
_KEEP_ALIVE_S = {"TCP_KEEPIDLE": 6, "TCP_KEEPINTVL": 3, "TCP_KEEPCNT": 3}
_KEEP_ALIVE = {
    "socket_keepalive": True,
    "socket_keepalive_options": {
        getattr(socket, name): value for name, value in _KEEP_ALIVE_S.items() if hasattr(socket, name)
    },
}


def client_for(url: str, *, socket_timeout_s: float, max_connections: int) -> Client:
    """Creates the client of a URL, without connecting.

    No client retries: on the hot path a second attempt comes too late, and elsewhere the caller decides.

    Args:
        url: See `service.store.redis.redis_url`.
        socket_timeout_s: A connection is dropped if connecting or a reply takes longer.
        max_connections: Connections in the pool; of a cluster, to each node.

    Raises:
        SettingsError: The URL cannot be used.
    """
    where = parse_url(url)
    options: dict[str, Any] = {
        **({} if where.kind == "unix" else _KEEP_ALIVE),
        "socket_timeout": socket_timeout_s,
        "socket_connect_timeout": socket_timeout_s,
        "protocol": 2,  # RESP3 would add a HELLO round trip to each connection, for nothing
        "retry": Retry(NoBackoff(), 0),
        "max_connections": max_connections,
    }
    try:
        if where.kind == "cluster":
            return ClusterClient(where.addresses, **{**where.options, **options, **_secured(where)})
        if where.kind == "sentinel":
            return _sentinel(where, options)
        return _single(where, options)
    except (TypeError, ValueError, RedisError) as error:
        raise SettingsError(f"the options of the Redis URL cannot be used: {error}") from None


def _single(where: RedisUrl, options: dict[str, Any]) -> Client:
    if where.kind == "unix":
        kind: dict[str, Any] = {"connection_class": UnixDomainSocketConnection, "path": where.path}
    else:
        ((host, port),) = where.addresses
        kind = {"host": host, "port": port, **_secured(where)}
    return Redis.from_pool(ConnectionPool(**kind, **where.options, **options))


def _secured(where: RedisUrl) -> dict[str, Any]:
    return {"connection_class": SSLConnection} if where.tls else {}


def _sentinel(where: RedisUrl, options: dict[str, Any]) -> Client:
    tls = {"ssl": True} if where.tls else {}
    sentinel = FollowedSentinel(  # type: ignore[no-untyped-call]
        where.addresses, sentinel_kwargs={**options, **where.sentinel, **tls}, **where.options, **options, **tls
    )
    master: Client = sentinel.master_for(where.service)
    return master


class FollowedSentinel(Sentinel):
    """Sentinels that name the promoted replica during a fail-over, and not only after it.

    The base class asks for SENTINEL MASTERS, which names the old master until the fail-over has ended. Until then the
    old master goes on accepting writes, and they are lost. SENTINEL GET-MASTER-ADDR-BY-NAME names the new one as soon
    as it is promoted.
    """

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """Returns the address to write to, from the first Sentinel that knows one.

        Raises:
            MasterNotFoundError: No Sentinel answers with a master that is up.
        """
        failures = []
        for place, sentinel in enumerate(self.sentinels):
            try:
                masters: Any = await sentinel.sentinel_masters()
                found: Any = await sentinel.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", service_name)  # type: ignore[no-untyped-call]
            except (RedisError, OSError, TimeoutError) as error:
                failures.append(f"{type(error).__name__}: {error}")
                continue
            state = masters.get(service_name)
            if not found or not state:
                continue
            host, port = found
            address = host.decode() if isinstance(host, bytes) else str(host), int(port)
            if address != (state["ip"], state["port"]) or self.check_master_state(state, service_name):
                self.sentinels[0], self.sentinels[place] = sentinel, self.sentinels[0]
                return address
        raise MasterNotFoundError(f"No master found for {service_name!r}: {'; '.join(failures) or 'unknown'}")
