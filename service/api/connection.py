"""One client's connection: uvicorn's, with bounds on what a client that is slow, or says nothing, can hold.

    first byte of a request ──► last byte: `patience_s`, then 408        (slow heads, slow bodies)
    answer that cannot be sent ──► sent:   `patience_s`, then dropped    (clients that do not read)
    requests sent ahead of answers:        `AHEAD_MAX`, then dropped     (floods through one connection)
    nothing under way:                     uvicorn's keep-alive, before the first request as well
    head of a request: `HEAD_MAX` bytes, `HEADERS_MAX` headers, a target of `TARGET_MAX` bytes, else 431 or 414
    what comes with a body and is none (chunk sizes, trailers): `FRAMING_MAX` bytes, then dropped

A request that arrives at once, as nearly all do, costs two flags: a timer is set for those that do not.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# Key of the ASGI scope: the body did not arrive in time, and whoever waits for it shall say so.
TOO_SLOW = "gpt4rec.too_slow"

# A segment holds a thousand requests; uvicorn parses, and keeps, whatever is sent ahead, and nobody else has a turn
# meanwhile. Proxies send nothing ahead, and clients a few.
AHEAD_MAX = 64

# The rest of a head that is too large is answered by the application, which knows how to say no.
BAD_HEAD = "gpt4rec.bad_head"
HEAD_MAX = 32_768
HEADERS_MAX = 100
TARGET_MAX = 8_192

# Trailers are kept, and a long one is copied again with every segment; a body in chunks of one byte is still read.
FRAMING_MAX = 65_536
_FRAMING = 8

# A request may be on its way when the process begins to stop.
LAST_CALL_S = 0.25

_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class Connection(HttpToolsProtocol):
    """`patience_s`: seconds a client may take to send a request, or to take an answer."""

    def __init__(self, *args: Any, patience_s: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._patience_s = patience_s
        self._whole = self._last_call = False
        # Bytes of the segment being read, and those of the head that earlier ones began.
        self._segment = self._head = 0
        # Bytes after the head that were no body, as far as bodies do not need them.
        self._framing = 0
        self._heading = self._mixed = False
        self._receiving: asyncio.TimerHandle | None = None
        self._sending: asyncio.TimerHandle | None = None

    # -- connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        self._unset_keepalive_if_required()
        self._received()
        self._sent()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Ends at once only what is in the midst of an answer, and after it: closing an idle connection would lose a
        request that has been sent and not been read. What is answered from now on says that the connection ends."""
        if self._last_call or (self.cycle is not None and not self.cycle.response_complete):
            super().shutdown()
        else:
            self._last_call = True
            self.loop.call_later(LAST_CALL_S, self.shutdown)

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._drop_later()

    # -- requests

    def data_received(self, data: bytes) -> None:
        self._whole = self._mixed = False
        self._segment = len(data)
        self._framing += len(data)
        super().data_received(data)
        if self._framing > FRAMING_MAX and not (self._whole or self._heading or self.transport.is_closing()):
            self.transport.abort()
            return
        if self._heading and self._head_too_large():
            return
        if self._whole:
            if self._receiving is not None:
                self._received()
        elif self._receiving is None and not self.transport.is_closing():
            self._receiving = self.loop.call_later(self._patience_s, self._too_slow)

    def on_message_begin(self) -> None:
        self._whole = False
        self._heading = True
        self._framing = 0
        super().on_message_begin()

    def on_body(self, body: bytes) -> None:
        self._framing -= _FRAMING * len(body)
        super().on_body(body)

    def on_headers_complete(self) -> None:
        self._heading = False
        if len(self.headers) > HEADERS_MAX or len(self.url) > TARGET_MAX or self._head + self._segment > HEAD_MAX:
            self._judge_head()
        self._head = 0
        if len(self.pipeline) >= AHEAD_MAX:
            self.transport.abort()
            raise ConnectionAbortedError("too many requests at once")
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._whole = self._mixed = True
        super().on_message_complete()

    def _judge_head(self) -> None:
        scope = cast("dict[str, Any]", self.scope)
        if len(self.url) > TARGET_MAX:
            scope[BAD_HEAD] = 414
        elif len(self.headers) > HEADERS_MAX or sum(len(name) + len(value) for name, value in self.headers) > HEAD_MAX:
            scope[BAD_HEAD] = 431

    def _head_too_large(self) -> bool:
        """Whether a head that goes on is too large already; then the connection ends, for nobody else knows of it."""
        if not self._mixed:  # else the segment was mostly another request's
            self._head += self._segment
        if self._head <= HEAD_MAX or self.transport.is_closing():
            return False
        self._received()
        if self.cycle is not None and not self.cycle.response_complete:
            self.transport.abort()  # an answer is under way, and nothing may be written into it
            return True
        self.transport.write(_TOO_LARGE)
        self.transport.close()
        self._drop_later()
        return True

    def _received(self) -> None:
        if self._receiving is not None:
            self._receiving.cancel()
            self._receiving = None

    def _too_slow(self) -> None:
        """The application answers for a body it waits for; nobody else knows of a request without its whole head."""
        self._receiving = None
        if self.transport.is_closing():
            return
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.keep_alive = False
            cast("dict[str, Any]", cycle.scope)[TOO_SLOW] = True
            cycle.message_event.set()
        else:
            self.transport.write(_TOO_SLOW)
            self.transport.close()
        self._drop_later()

    # -- answers

    def pause_writing(self) -> None:
        super().pause_writing()
        self._sending = self.loop.call_later(self._patience_s, self.transport.abort)

    def resume_writing(self) -> None:
        self._sent()
        super().resume_writing()

    def _sent(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None

    def _drop_later(self) -> None:
        """A close waits for what is not sent yet, and a client may never take it."""
        self._sent()
        self._sending = self.loop.call_later(self._patience_s, self.transport.abort)
