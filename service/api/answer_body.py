"""How the body of an answer is sent: compressed if it is large, and not at all for HEAD."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Iterable

from starlette.requests import ClientDisconnect
from starlette.types import Message, Send

from service.common.request_context import header

# Smaller answers gain too little to spend the time of the event loop on; a list of 100 items is smaller.
COMPRESSED_FROM = 16_384
# Larger answers are compressed on another thread.
_OFF_LOOP_FROM = 65_536
# The fastest level: text shrinks to a quarter already, and the next levels take several times as long.
_LEVEL = 1
_TEXTS = (b"text/", b"application/json", b"application/problem+json", b"image/svg+xml")
_NEVER = b"text/event-stream"

Headers = Iterable[tuple[bytes, bytes]]


def accepts_gzip(headers: Headers) -> bool:
    """Returns whether a request names gzip in its Accept-Encoding, and does not rule it out with `q=0`."""
    for part in (header(headers, b"accept-encoding") or b"").lower().split(b","):
        coding, _, weight = part.partition(b";")
        if coding.strip() == b"gzip":
            return weight.replace(b" ", b"").rstrip(b"0") not in (b"q=", b"q=0.")
    return False


class AnswerBody:
    """The `send` of a route.

    Only answers with a length are compressed: streams are sent on as they come.

    Args:
        send: Where to send the answer.
        head: Whether the request was a HEAD, which gets the headers of a GET and no body.
        asked: Headers of the request, which say whether the client accepts gzip.
    """

    def __init__(self, send: Send, *, head: bool, asked: Headers) -> None:
        self._send, self._head, self._asked = send, head, asked
        self._start: Message | None = None

    async def __call__(self, message: Message) -> None:
        """Sends a part of the answer.

        Raises:
            ClientDisconnect: The answer to a HEAD is complete, but the route has more to send.
        """
        if message["type"] == "http.response.start":
            self._start, headers = None, message.get("headers", ())
            if not _worth_compressing(headers):
                await self._send(message)
                return
            message["headers"] = [*headers, (b"vary", b"accept-encoding")]
            if not accepts_gzip(self._asked):
                await self._send(message)
                return
            self._start = message  # its headers depend on the body
            return
        start, self._start = self._start, None
        if start is not None:
            body = message["body"] = await _compressed(message.get("body", b""))
            given = (pair for pair in start["headers"] if pair[0] not in (b"content-length", b"etag"))
            # Another representation needs another tag; a weak one says that the content is the same.
            tags = [(name, b"W/" + value) for name, value in start["headers"] if name == b"etag"]
            length = (b"content-length", b"%d" % len(body))
            start["headers"] = [*given, *tags, (b"content-encoding", b"gzip"), length]
            await self._send(start)
        if self._head:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
            if message.get("more_body"):
                raise ClientDisconnect  # an endless stream ends here
            return
        await self._send(message)


def _worth_compressing(headers: Headers) -> bool:
    length, kind = header(headers, b"content-length"), header(headers, b"content-type") or b""
    return (
        length is not None
        and int(length) >= COMPRESSED_FROM
        and kind.startswith(_TEXTS)
        and not kind.startswith(_NEVER)
        and header(headers, b"content-encoding") is None
    )


async def _compressed(body: bytes) -> bytes:
    if len(body) < _OFF_LOOP_FROM:
        return gzip.compress(body, _LEVEL, mtime=0)
    return await asyncio.to_thread(gzip.compress, body, _LEVEL, mtime=0)
