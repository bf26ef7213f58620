"""HTTP/1.1 for load: raw keep-alive connections, requests encoded beforehand, a precise clock.

Each connection carries one request at a time. A request costs the generator a write, a read and a parse in C, so
that a generator on the same machine measures the service and not itself.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Protocol, cast

import httptools

_CLOCK_MONOTONIC = 1


def encode(method: str, host: str, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    """Encodes one request, ready to be written. `host` is the value of the Host header."""
    lines = {"Host": host, "Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body


class Owner(Protocol):
    """Receives the outcome of each request of a connection."""

    def answered(self, connection: Connection, number: int, status: int, body: bytes) -> None:
        """Called with the answer of a request."""

    def failed(self, connection: Connection, number: int, kind: str) -> None:
        """Called with the kind of failure of a request."""


class Connection(asyncio.Protocol):
    """A keep-alive connection; `number` is the request it carries, -1 if it is free."""

    __slots__ = ("_keep", "_owner", "_parser", "_pieces", "_transport", "number", "sent_at")

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._transport: asyncio.Transport | None = None
        self._pieces: list[bytes] = []
        self._parser = httptools.HttpResponseParser(self)
        self._keep = True
        self.number = -1
        self.sent_at = 0.0

    @property
    def usable(self) -> bool:
        """Whether a request can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def send(self, number: int, request: bytes) -> None:
        """Sends a request; the connection must be usable and free."""
        self.number = number
        self.sent_at = perf_counter()
        cast("asyncio.Transport", self._transport).write(request)

    def close(self) -> None:
        """Closes the connection after what was written."""
        if self._transport is not None:
            self._transport.close()

    def give_up(self, kind: str) -> None:
        """Fails the current request and closes the connection: its late answer must not meet another request."""
        number, self.number = self.number, -1
        if self._transport is not None:
            self._transport.abort()
        if number >= 0:
            self._owner.failed(self, number, kind)

    # -- what the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Parses what has arrived."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.give_up("not HTTP")

    def connection_lost(self, exc: Exception | None) -> None:
        """Fails the request under way."""
        self._transport = None
        number, self.number = self.number, -1
        if number >= 0:
            self._owner.failed(self, number, "cut off" if exc is None else type(exc).__name__)

    # -- what the parser calls

    def on_body(self, body: bytes) -> None:
        """Collects a piece of the body."""
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        """Passes the answer on."""
        number, self.number = self.number, -1
        body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces = []
        status = self._parser.get_status_code()
        if not self._parser.should_keep_alive():
            self.close()
        if number >= 0:
            self._owner.answered(self, number, status, body)


class Alarm:
    """Calls `ring` when it is due, to about 0.1 ms on Linux.

    The timers of an event loop tick in whole milliseconds, which would become part of a latency that counts from when a
    request was due. A timerfd of the kernel does not; without one (or where Python < 3.13 cannot reach it), the loop's
    timer is used.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop, self._ring = loop, ring
        self._libc = ctypes.CDLL(None)
        self._handle: asyncio.TimerHandle | None = None
        linux = sys.platform == "linux"
        self._fd = self._libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC) if linux else -1
        if self._fd >= 0:
            loop.add_reader(self._fd, self._rang)

    def set(self, delay_s: float) -> None:
        """Rings once after so many seconds (immediately if that is past); a later `set` replaces it."""
        if self._fd < 0:
            self._handle = self._loop.call_later(max(0.0, delay_s), self._ring)
            return
        # Zero would disarm the timer.
        nanoseconds = max(1_000, int(delay_s * 1e9))
        spec = _Spec(0, 0, nanoseconds // 1_000_000_000, nanoseconds % 1_000_000_000)
        self._libc.timerfd_settime(self._fd, 0, ctypes.byref(spec), None)

    def close(self) -> None:
        """Releases the timer."""
        if self._handle is not None:
            self._handle.cancel()
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _rang(self) -> None:
        os.read(self._fd, 8)
        self._ring()


class _Spec(ctypes.Structure):
    """struct itimerspec."""

    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )
