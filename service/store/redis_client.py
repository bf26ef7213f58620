"""The redis-py client of a URL: a single server, a Cluster, or the master behind a Sentinel."""

from __future__ import annotations

import socket
from typing import Any
from urllib.parse import unquote, urlsplit

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException

from service.common.errors import SettingsError

Client = Redis | RedisCluster

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

    The URL is one of

        redis://[[user]:password@]host:port/db       rediss:// with TLS        unix:///path?db=0
        redis+cluster://host:port[,host:port…]       rediss+cluster:// with TLS
        redis+sentinel://[[user]:password@]host:port[,host:port…]/service[/db]

    No client retries: on the hot path a second attempt comes too late, and elsewhere the caller decides.

    Args:
        url: The URL.
        socket_timeout_s: A connection is dropped if connecting or a reply takes longer.
        max_connections: Connections in the pool.

    Raises:
        SettingsError: The URL has another form.
    """
    scheme, _, rest = url.partition("://")
    options: dict[str, Any] = {
        **({} if scheme == "unix" else _KEEP_ALIVE),
        "socket_timeout": socket_timeout_s,
        "socket_connect_timeout": socket_timeout_s,
        "protocol": 2,  # RESP3 would add a HELLO round trip to each connection, for nothing
        "retry": Retry(NoBackoff(), 0),
        "max_connections": max_connections,
    }
    try:
        if scheme in ("redis", "rediss", "unix"):
            plain: Client = Redis.from_url(url, **options)
            return plain
        if scheme in ("redis+cluster", "rediss+cluster"):
            return _cluster(url, tls=scheme.startswith("rediss"), options=options)
        if scheme in ("redis+sentinel", "rediss+sentinel"):
            return _sentinel(url, tls=scheme.startswith("rediss"), options=options)
    except (ValueError, RedisClusterException):
        # The parser's own message may contain a part of the password.
        raise SettingsError(
            "the Redis URL cannot be used: write it as redis://user:password@host:port/0, with special characters of "
            "the password percent-encoded"
        ) from None
    shown = scheme if rest else "(none)"
    raise SettingsError(
        f"unknown scheme {shown} in the Redis URL: use redis, rediss, unix, redis+cluster or redis+sentinel"
    )


def _addresses(netloc: str, default_port: int) -> tuple[list[tuple[str, int]], dict[str, Any]]:
    """Splits `user:password@host:port,host:port` into addresses and credentials."""
    login, _, hosts = netloc.rpartition("@")
    user, _, password = login.partition(":")
    credentials: dict[str, Any] = {
        name: unquote(text) for name, text in (("username", user), ("password", password)) if text
    }
    addresses = []
    for address in hosts.split(","):
        parts = urlsplit(f"//{address}")
        if not parts.hostname:
            raise ValueError("a host name is missing")
        addresses.append((parts.hostname, parts.port or default_port))
    return addresses, credentials


def _cluster(url: str, *, tls: bool, options: dict[str, Any]) -> Client:
    addresses, credentials = _addresses(urlsplit(url).netloc, 6379)
    nodes = [ClusterNode(host, port) for host, port in addresses]
    return RedisCluster(startup_nodes=nodes, ssl=tls, **credentials, **options)


def _sentinel(url: str, *, tls: bool, options: dict[str, Any]) -> Client:
    parts = urlsplit(url)
    addresses, credentials = _addresses(parts.netloc, 26379)
    service, _, db = parts.path.strip("/").partition("/")
    if not service:
        raise ValueError("the name of the monitored service is missing: redis+sentinel://host:port/SERVICE")
    if tls:
        options["ssl"] = True
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        addresses, sentinel_kwargs=dict(options), db=int(db or 0), **credentials, **options
    )
    master: Client = sentinel.master_for(service)
    return master
