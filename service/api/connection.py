"""The connection of one client: uvicorn's, with bounds on what a slow or silent client can hold.

    first byte of a request ──► last byte: `patience_s`, then 408        (slow heads, slow bodies)
    answer that cannot be sent ──► sent:   `patience_s`, then closed     (clients that do not read)
    requests sent ahead of answers:        `AHEAD_MAX`, then closed      (floods through one connection)
    idle:                                  uvicorn's keep-alive, also before the first request
    head of a request: `HEAD_MAX` bytes, `HEADERS_MAX` headers, a target of `TARGET_MAX` bytes, else 431 or 414
    framing of a body (chunk sizes, trailers): `FRAMING_MAX` bytes, then closed

Nearly all requests arrive in one segment and cost two flags; only the others need a timer.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# Key of the ASGI scope: the body did not arrive in time, and the request gate answers 408.
TOO_SLOW = "gpt4rec.too_slow"

# A segment can hold a thousand requests. uvicorn parses and keeps all of them before any other connection has its turn.
# Proxies do not send requests ahead, and clients send a few.
AHEAD_MAX = 64

# Key of the ASGI scope: the status for a head that is too large. The request gate answers with it.
BAD_HEAD = "gpt4rec.bad_head"
HEAD_MAX = 32_768
HEADERS_MAX = 100
TARGET_MAX = 8_192

# Trailers are kept, and a long one is copied again with every segment.
FRAMING_MAX = 65_536
# Framing that a byte of the body may need: a body in chunks of one byte is still read.
_FRAMING = 8

# How long an idle connection stays open when the process begins to stop: a request may be on its way.
LAST_CALL_S = 0.25

_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class Connection(HttpToolsProtocol):
    """An HTTP connection with time-outs and bounds.

    Args:
        args: Of uvicorn's protocol.
        patience_s: Seconds a client may take to send a request, or to read an answer.
        kwargs: Of uvicorn's protocol.
    """

    def __init__(self, *args: Any, patience_s: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._patience_s = patience_s
        self._whole = self._last_call = False
        # Bytes of the present segment, and of the head in earlier segments.
        self._segment = self._head = 0
        # Bytes after the head beyond what the body and its chunks need.
        self._framing = 0
        self._heading = self._mixed = False
        self._receiving: asyncio.TimerHandle | None = None
        self._sending: asyncio.TimerHandle | None = None

    # -- connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts the keep-alive timer, so that a connection without a request is closed too."""
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops the timers."""
        self._unset_keepalive_if_required()
        self._received()
        self._sent()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Closes the connection after the answer in progress; an idle one stays open for `LAST_CALL_S`.

        Closing an idle connection at once would lose a request that was sent but not read yet. Answers from now on
        tell the client that the connection ends.
        """
        if self._last_call or (self.cycle is not None and not self.cycle.response_complete):
            super().shutdown()
        else:
            self._last_call = True
            self.loop.call_later(LAST_CALL_S, self.shutdown)

    def timeout_keep_alive_handler(self) -> None:
        """Closes an idle connection."""
        super().timeout_keep_alive_handler()
        self._drop_later()

    # -- requests

    def data_received(self, data: bytes) -> None:
        """Parses a segment, and bounds the size of the head and the framing and the time of the request."""
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
        """Begins a request."""
        self._whole = False
        self._heading = True
        self._framing = 0
        super().on_message_begin()

    def on_body(self, body: bytes) -> None:
        """Takes a part of the body, and the framing that it may need."""
        self._framing -= _FRAMING * len(body)
        super().on_body(body)

    def on_headers_complete(self) -> None:
        """Checks the head, and the number of requests that wait for an answer."""
        self._heading = False
        if len(self.headers) > HEADERS_MAX or len(self.url) > TARGET_MAX or self._head + self._segment > HEAD_MAX:
            self._judge_head()
        self._head = 0
        if len(self.pipeline) >= AHEAD_MAX:
            self.transport.abort()
            raise ConnectionAbortedError("too many requests were sent ahead")
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Ends a request."""
        self._whole = self._mixed = True
        super().on_message_complete()

    def _judge_head(self) -> None:
        scope = cast("dict[str, Any]", self.scope)
        if len(self.url) > TARGET_MAX:
            scope[BAD_HEAD] = 414
        elif len(self.headers) > HEADERS_MAX or sum(len(name) + len(value) for name, value in self.headers) > HEAD_MAX:
            scope[BAD_HEAD] = 431

    def _head_too_large(self) -> bool:
        """Whether an incomplete head is too large already. If so, answers and closes: there is no request yet."""
        if not self._mixed:  # otherwise most of the segment belongs to the request before
            self._head += self._segment
        if self._head <= HEAD_MAX or self.transport.is_closing():
            return False
        self._received()
        if self.cycle is not None and not self.cycle.response_complete:
            self.transport.abort()  # an answer is being written
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
        """Ends a request that took too long; the application answers if it waits for the body, else this does."""
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
        """Starts the time-out of a client that does not read."""
        super().pause_writing()
        self._sending = self.loop.call_later(self._patience_s, self.transport.abort)

    def resume_writing(self) -> None:
        """Stops the time-out: the client reads again."""
        self._sent()
        super().resume_writing()

    def _sent(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None

    def _drop_later(self) -> None:
        """Aborts a connection whose close waits for data that the client does not read."""
        self._sent()
        self._sending = self.loop.call_later(self._patience_s, self.transport.abort)
