"""One pipelined connection for the read that every `/recommend` makes.

redis-py lends a connection to each command and takes it back, which costs more than the command. Here all commands of
the process share one connection: what is asked in one turn of the event loop leaves in one write, replies are handed
out in order, and a caller that has stopped waiting simply does not look at its own. Plain and Unix sockets only; with
TLS, Sentinel or Cluster the reads go through redis-py like everything else.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, cast

import hiredis

from service.common.errors import StoreUnavailable

# Replies waited for at once; a server that falls further behind than this is as good as away.
_UNANSWERED_MAX = 2048

# Turns of the event loop an overdue reply may still need.
_LAST_CHANCE = 8

Part = str | bytes | int


class RedisLane:
    """`ask` sends a command and returns the reply's future; `connect` comes before it where the lane is not `open`.

    A connection whose oldest reply is overdue by `slowest_s` is given up: all its callers get StoreUnavailable. At
    most one attempt to connect every `retry_s`.
    """

    def __init__(self, options: Mapping[str, Any], *, slowest_s: float, retry_s: float = 0.05) -> None:
        self._options = options
        self._slowest_s, self._retry_s = slowest_s, retry_s
        self._line: _Line | None = None
        self._connecting: asyncio.Task[_Line] | None = None
        self._next_try = 0.0

    @property
    def open(self) -> bool:
        return self._line is not None and self._line.open

    def ask(self, parts: Sequence[Part]) -> asyncio.Future[Any]:
        """The reply's future: StoreUnavailable where the connection is lost, and an error of the server as the result,
        a `hiredis.ReplyError`. Raises StoreUnavailable where there is no connection."""
        if self._line is None:
            raise StoreUnavailable("no connection for reads")
        return self._line.ask(parts)

    def connect(self) -> asyncio.Task[_Line]:
        """The attempt under way, or a new one; to be waited for, not cancelled. Its failure shows in `ask`.

        Raises StoreUnavailable right after a failed attempt.
        """
        loop = asyncio.get_running_loop()
        if self._connecting is None:
            if loop.time() < self._next_try:
                raise StoreUnavailable("no connection for reads a moment ago")
            self._connecting = loop.create_task(self._open())
            self._connecting.add_done_callback(self._connected)
        return self._connecting

    def _connected(self, attempt: asyncio.Task[_Line]) -> None:
        self._connecting = None
        if attempt.cancelled() or attempt.exception() is not None:
            self._next_try = asyncio.get_running_loop().time() + self._retry_s
        else:
            self._line = attempt.result()

    async def _open(self) -> _Line:
        loop, options = asyncio.get_running_loop(), self._options
        async with asyncio.timeout(self._slowest_s):
            if options.get("path"):
                _, protocol = await loop.create_unix_connection(lambda: _Line(self._slowest_s), options["path"])
            else:
                host, port = options.get("host", "localhost"), options.get("port", 6379)
                _, protocol = await loop.create_connection(lambda: _Line(self._slowest_s), host, port)
            line = protocol
            try:
                for command in _greeting(options):
                    reply = await line.ask(command)
                    if isinstance(reply, hiredis.ReplyError):
                        raise StoreUnavailable(f"{command[0]!s} was refused: {reply}")
            except BaseException:
                line.close()
                raise
        return line

    async def close(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait((self._connecting,))
        if self._line is not None:
            self._line.close()


def _greeting(options: Mapping[str, Any]) -> list[tuple[Part, ...]]:
    """AUTH and SELECT, as far as they are needed."""
    commands: list[tuple[Part, ...]] = []
    if options.get("password"):
        user = (options["username"],) if options.get("username") else ()
        commands.append(("AUTH", *user, options["password"]))
    if options.get("db"):
        commands.append(("SELECT", int(options["db"])))
    return commands


class _Line(asyncio.Protocol):
    """One connection."""

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
            raise StoreUnavailable("no connection, or too many replies are outstanding")
        # First, since a reply that is waited for and never comes would shift all others.
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

    def _check(self, turns: int = _LAST_CHANCE) -> None:
        """Runs while anything is waited for; one timer serves all replies."""
        self._watch = None
        if not self._waiting:
            return
        overdue = self._waiting[0][0] + self._slowest_s - self._loop.time()
        if overdue > 0:
            self._watch = self._loop.call_later(overdue, self._check)
        elif turns:  # a loop that lags fires its timers before it has read what is already there
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
            self.close()  # whatever is at the other end, it does not speak the protocol

    def connection_lost(self, exc: Exception | None) -> None:
        if self._watch is not None:
            self._watch.cancel()
        waiting, self._waiting = self._waiting, deque()
        for _, future in waiting:
            if not future.done():
                future.set_exception(StoreUnavailable(f"the connection was lost: {exc}"))
                future.exception()  # looked at: its caller may have stopped waiting
