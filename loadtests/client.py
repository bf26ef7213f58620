"""A small HTTP/1.1 client for load: keep-alive connections, one request at a time on each.

It costs about a tenth of what a general client does, so that a generator on the same machine measures the service and
not itself.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httptools
import orjson


class LoadError(Exception):
    """No answer came: refused, cut off, too slow, or not HTTP."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: Any


@dataclass(slots=True)
class _Reply:
    """What httptools tells while it reads one answer."""

    done: bool = False
    keep: bool = True
    pieces: list[bytes] = field(default_factory=list)

    def on_body(self, body: bytes) -> None:
        self.pieces.append(body)

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"connection" and value.lower() == b"close":
            self.keep = False

    def on_message_complete(self) -> None:
        self.done = True


class Pool:
    """At most `size` connections to one host. A request waits for a free one."""

    def __init__(self, host: str, port: int, *, size: int, headers: Mapping[str, str], timeout_s: float) -> None:
        self._host, self._port, self._timeout_s = host, port, timeout_s
        shown = f"[{host}]" if ":" in host else host
        lines = {"Host": f"{shown}:{port}", "Content-Type": "application/json", **headers}
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in lines.items()).encode()
        self._free: asyncio.LifoQueue[tuple[asyncio.StreamReader, asyncio.StreamWriter] | None] = asyncio.LifoQueue()
        for _ in range(size):
            self._free.put_nowait(None)

    async def request(self, method: str, path: str, body: Any = None) -> Answer:
        """Raises LoadError."""
        content = b"" if body is None else orjson.dumps(body)
        head = f"{method} {path} HTTP/1.1\r\nContent-Length: {len(content)}\r\n".encode() + self._headers + b"\r\n"
        try:
            async with asyncio.timeout(self._timeout_s), self._connection() as (reader, writer, keep):
                writer.write(head + content)
                status, reply = await _read(reader)
                keep(reply.keep)
        except (OSError, TimeoutError, httptools.HttpParserError) as error:
            raise LoadError(type(error).__name__) from error
        content = b"".join(reply.pieces)
        with contextlib.suppress(orjson.JSONDecodeError):
            return Answer(status, orjson.loads(content))
        return Answer(status, content)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter, Any]]:
        """A connection and the function that says whether it may be used again; by default it may not."""
        streams = await self._free.get()
        again = False

        def keep(yes: bool) -> None:
            nonlocal again
            again = yes

        try:
            if streams is None:
                streams = await asyncio.open_connection(self._host, self._port)
            yield *streams, keep
        finally:
            if streams is not None and not again:
                streams[1].close()
            self._free.put_nowait(streams if again else None)

    async def close(self) -> None:
        while not self._free.empty():
            streams = self._free.get_nowait()
            if streams is not None:
                streams[1].close()
                with contextlib.suppress(OSError):
                    await streams[1].wait_closed()


async def _read(reader: asyncio.StreamReader) -> tuple[int, _Reply]:
    reply = _Reply()
    parser = httptools.HttpResponseParser(reply)
    while not reply.done:
        piece = await reader.read(65_536)
        if not piece:
            raise ConnectionResetError
        parser.feed_data(piece)
    return parser.get_status_code(), reply
