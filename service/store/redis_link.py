"""The way to Redis: URL → client, bounded waiting, and the one translation of foreign exceptions.

A command in flight is never cancelled. redis-py hands connections from one command to the next, and a
command that is cancelled between its request and its reply can leave that reply to the next caller (redis-py
#2624, #2665). So each command runs in a task of its own: a caller that runs out of time, or is cancelled,
stops waiting, and the task reads its reply to the end.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import hiredis
from redis.asyncio import Connection, ConnectionPool, Redis, RedisCluster, UnixDomainSocketConnection
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisClusterException, RedisError

from service.common.errors import SettingsError, StoreUnavailable
from service.store.lua_scripts import Script
from service.store.redis_read_lane import RedisLane

T = TypeVar("T")
Client = Redis | RedisCluster

# RuntimeError is uvloop's word for a connection that is closed already.
_FOREIGN = (RedisError, RedisClusterException, OSError, TimeoutError, RuntimeError)

# A peer that is gone without a word is noticed within 15 s on connections that nobody waits on: those that lie in the
# pool, and the subscription.
_KEEP_ALIVE_S = {"TCP_KEEPIDLE": 6, "TCP_KEEPINTVL": 3, "TCP_KEEPCNT": 3}
_KEPT_ALIVE = {
    "socket_keepalive": True,
    "socket_keepalive_options": {
        getattr(socket, name): value for name, value in _KEEP_ALIVE_S.items() if hasattr(socket, name)
    },
}

# Turns of the event loop a reply may still need after its bytes have arrived.
_LAST_CHANCE = 8
# A subscription that was asked for a sign of life and gave none for so long is made anew.
_SILENT_S = 3.0


@dataclass(frozen=True, slots=True)
class ScriptCall:
    script: Script
    keys: tuple[str, ...]
    args: tuple[str | bytes | int, ...]

    def evalsha(self) -> tuple[Any, ...]:
        return ("EVALSHA", self.script.sha, len(self.keys), *self.keys, *self.args)

    def eval(self) -> tuple[Any, ...]:
        return ("EVAL", self.script.source, len(self.keys), *self.keys, *self.args)


def client_for(url: str, *, socket_timeout_s: float, max_connections: int) -> Client:
    """The client of a URL. Nothing connects yet.

        redis://[[user]:password@]host:port/db       rediss:// with TLS        unix:///path?db=0
        redis+cluster://host:port[,host:port…]       rediss+cluster:// with TLS
        redis+sentinel://[[user]:password@]host:port[,host:port…]/service[/db]

    Raises SettingsError for anything else. No client retries: on the hot path a second attempt comes too
    late, and elsewhere the caller decides.
    """
    scheme, _, rest = url.partition("://")
    options: dict[str, Any] = {
        **({} if scheme == "unix" else _KEPT_ALIVE),
        "socket_timeout": socket_timeout_s,
        "socket_connect_timeout": socket_timeout_s,
        "protocol": 2,  # RESP3 would add a HELLO round trip to each connection and gives nothing here
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
        # The parser's own message may quote a part of the password.
        raise SettingsError(
            "the Redis URL cannot be used: write it as redis://user:password@host:port/0, with special characters of "
            "the password percent-encoded"
        ) from None
    shown = scheme if rest else "(none)"
    raise SettingsError(
        f"unknown scheme {shown} in the Redis URL: use redis, rediss, unix, redis+cluster or redis+sentinel"
    )


def _addresses(netloc: str, default_port: int) -> tuple[list[tuple[str, int]], dict[str, Any]]:
    """The hosts of `user:password@host:port,host:port`, and the credentials."""
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


def _lane(client: Client, slowest_s: float) -> RedisLane | None:
    """A connection for reads, where the server is one plain address."""
    pool = getattr(client, "connection_pool", None)
    if type(pool) is not ConnectionPool or pool.connection_class not in (Connection, UnixDomainSocketConnection):
        return None
    return RedisLane(pool.connection_kwargs, slowest_s=slowest_s)


class RedisLink:
    """One client, used by many requests at once.

    At most `max_commands` run at a time; a command waits for its turn within its own time-out. Raises
    StoreUnavailable and nothing else.
    """

    def __init__(
        self, url: str, *, slowest_s: float, slowest_read_s: float | None = None, max_commands: int = 16
    ) -> None:
        """A connection is given up where a reply takes `slowest_s`; the one of `read_script` after `slowest_read_s`."""
        # Three connections more than commands: two for the subscriptions, one to spare.
        self._client = client_for(url, socket_timeout_s=slowest_s, max_connections=max_commands + 3)
        self._lane = _lane(self._client, slowest_read_s or slowest_s)
        self._turn = asyncio.Semaphore(max_commands)
        self._in_flight: set[asyncio.Task[Any]] = set()

    @property
    def is_cluster(self) -> bool:
        return isinstance(self._client, RedisCluster)

    async def command(self, *args: str | bytes | int, timeout_s: float) -> Any:
        return await self._bounded(str(args[0]), lambda: self._client.execute_command(*args), timeout_s)

    async def script(self, call: ScriptCall, *, timeout_s: float) -> Any:
        """One EVALSHA; the source is sent only when the server does not know the script."""

        async def run() -> Any:
            try:
                return await self._client.execute_command(*call.evalsha())
            except NoScriptError:
                return await self._client.execute_command(*call.eval())

        return await self._bounded("EVALSHA", run, timeout_s)

    async def read_script(self, call: ScriptCall, *, timeout_s: float) -> Any:
        """`script` for a script that only reads, on the connection that all reads share, where there is one."""
        if self._lane is None:
            return await self.script(call, timeout_s=timeout_s)
        deadline = asyncio.get_running_loop().time() + timeout_s
        if not self._lane.open:
            await _in_time("connect", self._lane.connect(), deadline)
        answer = self._lane.ask(call.evalsha())
        timer = asyncio.get_running_loop().call_at(deadline, _overdue, answer, _LAST_CHANCE)
        try:
            reply = await answer
        finally:
            timer.cancel()
        if not isinstance(reply, hiredis.ReplyError):
            return reply
        if str(reply).startswith("NOSCRIPT"):
            return await self.script(call, timeout_s=deadline - asyncio.get_running_loop().time())
        raise StoreUnavailable(f"EVALSHA: {reply}")

    async def scripts(
        self, calls: Sequence[ScriptCall], *, barrier: tuple[str | int, ...] | None, timeout_s: float
    ) -> tuple[list[Any], Any]:
        """The replies of many scripts in one round trip, and the reply of `barrier`.

        The barrier is a WAIT or WAITAOF: it speaks for the writes of its own connection only, so it goes
        down the same pipeline.
        """

        async def run() -> tuple[list[Any], Any]:
            replies, barrier_reply = await self._pipeline([c.evalsha() for c in calls], barrier)
            unknown = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
            if unknown:
                again, barrier_reply = await self._pipeline([calls[i].eval() for i in unknown], barrier)
                for i, reply in zip(unknown, again, strict=True):
                    replies[i] = reply
            for reply in (*replies, barrier_reply):
                if isinstance(reply, Exception):
                    raise reply
            return replies, barrier_reply

        return await self._bounded("EVALSHA", run, timeout_s)

    async def _pipeline(
        self, commands: Sequence[tuple[Any, ...]], barrier: tuple[str | int, ...] | None
    ) -> tuple[list[Any], Any]:
        pipe: Any = self._client.pipeline() if self.is_cluster else self._client.pipeline(transaction=False)
        for command in commands:
            pipe.execute_command(*command)
        if barrier is not None:
            pipe.execute_command(*barrier)
        replies = await pipe.execute(raise_on_error=False)
        return list(replies[: len(commands)]), replies[-1] if barrier is not None else None

    async def messages(self, channel: str, *, greeting: bool = False) -> AsyncGenerator[bytes, None]:
        """The messages of a channel, on a connection of its own. Ends only by StoreUnavailable. With `greeting` an
        empty one comes whenever a subscription begins to hold: nothing that is published later is missed.

        A connection whose other end is gone without a word would be silent for ever: it is asked for a sign of life.
        """
        pubsub: Any = self._client.pubsub()
        loop = asyncio.get_running_loop()
        try:
            await pubsub.subscribe(channel)
            heard = asked = loop.time()
            while not _being_cancelled():
                message = await pubsub.get_message(ignore_subscribe_messages=not greeting, timeout=0.5)
                if message is not None:
                    heard = loop.time()
                    if message["type"] == "message":
                        yield message["data"]
                    elif message["type"] == "subscribe":
                        yield b""
                elif loop.time() - heard > _SILENT_S:
                    raise StoreUnavailable(f"SUBSCRIBE: no sign of life in {_SILENT_S:.0f} s")
                elif loop.time() - max(heard, asked) > _SILENT_S / 3:
                    await pubsub.ping()
                    asked = loop.time()
            raise asyncio.CancelledError
        except _FOREIGN as error:
            raise _unavailable("SUBSCRIBE", error) from error
        finally:
            await pubsub.aclose()

    async def _bounded(self, name: str, run: Callable[[], Awaitable[T]], timeout_s: float) -> T:
        """Wait for `run` at most `timeout_s`; it goes on alone if the caller cannot."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        if self._turn.locked():
            try:
                async with asyncio.timeout_at(deadline):
                    await self._turn.acquire()
            except TimeoutError:
                raise StoreUnavailable(f"{name}: no connection became free in {timeout_s:.3f} s") from None
        else:
            await self._turn.acquire()  # does not wait
        task = loop.create_task(self._to_the_end(run))
        self._in_flight.add(task)
        task.add_done_callback(self._finished)
        await _in_time(name, task, deadline)
        try:
            return task.result()
        except _FOREIGN as error:
            raise _unavailable(name, error) from error

    async def _to_the_end(self, run: Callable[[], Awaitable[T]]) -> T:
        try:
            return await run()
        except RuntimeError:
            # The connection was reset while it lay in the pool, which sees an end of file only. Nothing was sent, and
            # the pool connects it anew.
            return await run()

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._in_flight.discard(task)
        self._turn.release()
        if not task.cancelled():
            task.exception()  # looked at, so that a failure nobody waited for is not reported as lost

    async def close(self) -> None:
        """Let the commands in flight end (their socket time-out bounds that), then disconnect."""
        if self._in_flight:
            await asyncio.wait(set(self._in_flight))
        if self._lane is not None:
            await self._lane.close()
        await self._client.aclose()
        # The client of a Sentinel's master does not own the clients that ask the Sentinels.
        pool = getattr(self._client, "connection_pool", None)
        for sentinel in getattr(getattr(pool, "sentinel_manager", None), "sentinels", ()):
            await sentinel.aclose()


def _overdue(answer: asyncio.Future[Any], turns: int) -> None:
    """Fails an answer that did not come in time."""
    if answer.done():
        return
    if turns:  # a loop that lags fires its timers before it has read what is already there
        answer.get_loop().call_soon(_overdue, answer, turns - 1)
    else:
        answer.set_exception(StoreUnavailable("EVALSHA: no reply in time"))


async def _in_time(name: str, awaited: asyncio.Future[Any], deadline: float) -> None:
    """Waits until it is done, without cancelling it. Raises StoreUnavailable where that is not before the deadline."""
    await asyncio.wait((awaited,), timeout=deadline - asyncio.get_running_loop().time())
    for _ in range(_LAST_CHANCE):
        if awaited.done():
            return
        # A loop that lags fires its timers before it has read what is already there.
        await asyncio.sleep(0)
    if not awaited.done():
        raise StoreUnavailable(f"{name}: no reply in time")


def _being_cancelled() -> bool:
    """Whether this task was told to end. redis-py waits with `asyncio.wait_for`, which before Python 3.12 may
    swallow the CancelledError (cpython #86296)."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _unavailable(name: str, error: BaseException) -> StoreUnavailable:
    return StoreUnavailable(f"{name}: {type(error).__name__}: {error}")
