"""Calls an ASGI application without a server, so that a caller can send any path, and leave a stream that goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from starlette.types import ASGIApp, Message


@dataclass(frozen=True, slots=True)
class Asked:
    """A request.

    Attributes:
        method: Of the request.
        target: Path and query, as they are sent.
        headers: Names in lower case, and values.
        body: The body.
    """

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Told:
    """An answer; of an event stream, its first event."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    def holds(self, text: str) -> bool:
        """Returns whether the body or a header contains a text."""
        sought = text.encode()
        return sought in self.body or any(sought in value for _, value in self.headers)


async def call(app: ASGIApp, asked: Asked) -> Told:
    """Returns the answer to a request."""
    gone = asyncio.Event()
    sent = iter([{"type": "http.request", "body": asked.body, "more_body": False}])
    started: Message = {}
    parts: list[bytes] = []

    async def receive() -> Message:
        message = next(sent, None)
        if message is None:
            await gone.wait()
            return {"type": "http.disconnect"}
        return message

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            started.update(message)
            return
        parts.append(message.get("body", b""))
        # A client leaves a stream when it has seen what it came for.
        if not message.get("more_body") or _streams(started["headers"]):
            gone.set()

    await app(_scope(asked), receive, send)
    return Told(started["status"], tuple(started["headers"]), b"".join(parts))


def _streams(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(name == b"content-type" and value.startswith(b"text/event-stream") for name, value in headers)


def _scope(asked: Asked) -> dict[str, Any]:
    path, _, query = asked.target.partition("?")
    headers = [(name.encode(), value.encode("latin-1")) for name, value in asked.headers]
    if asked.body:
        headers.append((b"content-type", b"application/json"))
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": asked.method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(b"host", b"isolation"), (b"content-length", str(len(asked.body)).encode()), *headers],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
    }
