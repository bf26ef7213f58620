"""One pipelined connection for the read that every `/recommend` makes.

redis-py lends a connection to each command and takes it back, which costs more than the command itself. Here all reads
of the process share one connection: commands of one turn of the event loop leave in one write, replies are handed out
in order, and the reply of a caller that has stopped waiting is discarded. Plain TCP and Unix sockets only; with TLS,
Sentinel or Cluster, reads go through redis-py like everything else.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, cast

import hiredis

from service.common.errors import StoreUnavailable
from service.store.redis.redis_causes import cause_of

# Outstanding replies at a time; a server that falls further behind counts as unavailable.
_UNANSWERED_MAX = 2048

# Turns of the event loop granted to an overdue reply: its bytes may have arrived without having been read.
_GRACE_TURNS = 8

Part = str | bytes | int


class RedisLane:
    """Sends commands with `ask`; `connect` comes first if the lane is not `open`."""

    def __init__(self, options: Mapping[str, Any], *, slowest_s: float, retry_s: float = 0.05) -> None:
        """Creates the lane, without connecting.

        Args:
            options: Of a redis-py connection: `host` and `port`, or `path`; `username`, `password` and `db`.
            slowest_s: The connection is dropped when its oldest reply takes longer. All callers then get
                StoreUnavailable.
            retry_s: Shortest time between two attempts to connect.
        """
        self._options = options
        self._slowest_s, self._retry_s = slowest_s, retry_s
        self._connection: _Connection | None = None
        self._left: list[_Connection] = []  # what `leave` left, while replies are outstanding
        self._connecting: asyncio.Task[_Connection] | None = None
        self._next_try = 0.0
        self._failure: BaseException | None = None  # of the latest attempt to connect

    @property
    def open(self) -> bool:
        """Whether there is a connection."""
        return self._connection is not None and self._connection.open

    def ask(self, parts: Sequence[Part]) -> asyncio.Future[Any]:
        """Sends a command.

        Returns:
            The future of the reply. An error reply of the server is its result, a `hiredis.ReplyError`; a lost
            connection is its exception, StoreUnavailable.

        Raises:
            StoreUnavailable: There is no connection.
        """
        if self._connection is None:
            raise self._unavailable("no connection for reads")
        return self._connection.ask(parts)

    def leave(self) -> None:
        """Makes the next read connect anew, because another server may be behind the address.

        Replies that are outstanding still arrive.
        """
        connection, self._connection = self._connection, None
        self._left = [one for one in self._left if one.open]
        if connection is not None and connection.open:
            self._left.append(connection)
            asyncio.get_running_loop().call_later(self._slowest_s, connection.close)

    def connect(self) -> asyncio.Task[_Connection]:
        """Returns the attempt to connect that is in flight, or starts one. Wait for it, but do not cancel it.

        If it fails, the next `ask` raises StoreUnavailable.

        Raises:
            StoreUnavailable: The last attempt failed less than `retry_s` ago.
        """
        loop = asyncio.get_running_loop()
        if self._connecting is None:
            if loop.time() < self._next_try:
                raise self._unavailable("connecting for reads failed a moment ago")
            self._connecting = loop.create_task(self._open())
            self._connecting.add_done_callback(self._connected)
        return self._connecting

    def _connected(self, attempt: asyncio.Task[_Connection]) -> None:
        self._connecting = None
        self._failure = None if attempt.cancelled() else attempt.exception()
        if attempt.cancelled() or self._failure is not None:
            self._next_try = asyncio.get_running_loop().time() + self._retry_s
        else:
            self._connection = attempt.result()

    def _unavailable(self, what: str) -> StoreUnavailable:
        if self._failure is None:
            return StoreUnavailable(what, cause="disconnected")
        return StoreUnavailable(f"{what}: {self._failure!r}", cause=cause_of(self._failure))

    async def _open(self) -> _Connection:
        loop, options = asyncio.get_running_loop(), self._options
        async with asyncio.timeout(self._slowest_s):
            if options.get("path"):
                _, protocol = await loop.create_unix_connection(lambda: _Connection(self._slowest_s), options["path"])
            else:
                host, port = options.get("host", "localhost"), options.get("port", 6379)
                _, protocol = await loop.create_connection(lambda: _Connection(self._slowest_s), host, port)
            connection = protocol
            try:
                for command in _greeting(options):
                    reply = await connection.ask(command)
                    if isinstance(reply, hiredis.ReplyError):
                        raise StoreUnavailable(f"{command[0]!s} was refused: {reply}", cause=cause_of(reply))
            except BaseException:
                connection.close()
                raise
        return connection

    async def close(self) -> None:
        """Closes the connection; its callers get StoreUnavailable."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait((self._connecting,))
        for connection in (self._connection, *self._left):
            if connection is not None:
                connection.close()


def _greeting(options: Mapping[str, Any]) -> list[tuple[Part, ...]]:
    """The AUTH, SELECT and CLIENT SETNAME commands that the options require."""
    commands: list[tuple[Part, ...]] = []
    if options.get("password"):
        user = (options["username"],) if options.get("username") else ()
        commands.append(("AUTH", *user, options["password"]))
    if options.get("db"):
        commands.append(("SELECT", int(options["db"])))
    if options.get("client_name"):
        commands.append(("CLIENT", "SETNAME", str(options["client_name"])))
    return commands


class _Connection(asyncio.Protocol):
    """One connection: commands out, replies handed to their futures in order."""

    def __init__(self, slowest_s: float) -> None:
        self._slowest_s = slowest_s
        self._reader = hiredis.Reader()
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[tuple[float, asyncio.Future[Any]]] = deque()
        self._outgoing: list[bytes] = []
        self._watch: asyncio.TimerHandle | None = None

    @property
    def open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def ask(self, parts: Sequence[Part]) -> asyncio.Future[Any]:
        if not self.open or len(self._waiting) >= _UNANSWERED_MAX:
            raise StoreUnavailable("no connection, or too many outstanding replies", cause="disconnected")
        # First: if packing failed after the future was queued, every later reply would go to the wrong caller.
        packed = hiredis.pack_command(tuple(parts))  # type: ignore[arg-type]
        future = self._loop.create_future()
        self._waiting.append((self._loop.time(), future))
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(packed)
        if self._watch is None:
            self._watch = self._loop.call_later(self._slowest_s, self._check)
        return future

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _flush(self) -> None:
        outgoing, self._outgoing = self._outgoing, []
        if self._transport is not None and self.open:
            self._transport.write(outgoing[0] if len(outgoing) == 1 else b"".join(outgoing))

    def _check(self, turns: int = _GRACE_TURNS) -> None:
        """Drops the connection if the oldest reply is overdue. One timer serves all replies."""
        self._watch = None
        if not self._waiting:
            return
        overdue = self._waiting[0][0] + self._slowest_s - self._loop.time()
        if overdue > 0:
            self._watch = self._loop.call_later(overdue, self._check)
        elif turns:  # a loop that lags fires its timers before it reads the sockets
            self._loop.call_soon(self._check, turns - 1)
        else:
            self.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not False:
                _, future = self._waiting.popleft()
                if not future.done():
                    future.set_result(reply)
        except (hiredis.ProtocolError, IndexError):
            self.close()  # the peer does not speak the protocol

    def connection_lost(self, exc: Exception | None) -> None:
        if self._watch is not None:
            self._watch.cancel()
        waiting, self._waiting = self._waiting, deque()
        for _, future in waiting:
            if not future.done():
                future.set_exception(StoreUnavailable(f"the connection was lost: {exc}", cause="disconnected"))
                future.exception()  # retrieved: the caller may have stopped waiting
