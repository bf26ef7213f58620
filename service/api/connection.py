"""The connection of one client: uvicorn's, with bounds on what a slow or silent client can hold.

    first byte of a request ──► last byte: `patience_s`, then 408        (slow heads, slow bodies)
    unanswered requests and unread answers of all connections: a bound, then 408, 503 or closed (`unanswered_bytes`)
    answer that cannot be sent ──► sent:   `patience_s`, then closed     (clients that do not read)
    requests sent ahead of answers:        `AHEAD_MAX`, then closed      (floods through one connection)
    idle:                                  uvicorn's keep-alive, also before the first request
    head of a request: `HEAD_MAX` bytes, `HEADERS_MAX` headers, a target of `TARGET_MAX` bytes, else 431 or 414
    framing of a body (chunk sizes, trailers): `FRAMING_MAX` bytes, then closed
    bytes that are no request, or could be read as another one: 400, then closed

Nearly all requests arrive in one segment and cost a few flags and sums; only the others need a timer. What cannot be
answered as it should takes its place behind the requests before it, so that no client mistakes one answer for another.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any, cast
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.api.exchange import Exchange
from service.api.request_head import HEAD_MAX, HEADERS_MAX, TARGET_MAX, framing_error, size_error, without_upgrade
from service.api.unanswered_bytes import UnansweredBytes
from service.common.errors import ServiceError
from service.common.request_errors import BadRequest, HeadTooLarge, TooSlow

# Key of the ASGI scope: the error with which the request gate answers the request instead of the application.
REFUSED = "gpt4rec.refused"

# A segment can hold a thousand requests. uvicorn parses and keeps all of them before any other connection has its turn.
# Proxies do not send requests ahead, and clients send a few.
AHEAD_MAX = 64

# The parser keeps a trailer until it ends, and copies it with every segment.
FRAMING_MAX = 65_536
# Framing that a byte of the body may need: a body in chunks of one byte is still read.
_FRAMING = 8

# How long an idle connection stays open when the process begins to stop: a request may be on its way.
LAST_CALL_S = 0.25

# A target that is its own path.
_PLAIN_PATH = re.compile(rb"/[A-Za-z0-9/_.~-]*")

# Target under which bytes that are no request are counted.
_NO_TARGET = b"/"


class Connection(HttpToolsProtocol):
    """An HTTP connection with time-outs and bounds.

    Args:
        args: Of uvicorn's protocol.
        patience_s: Seconds a client may take to send a request, or to read an answer.
        unanswered: Counts the bytes of all connections.
        kwargs: Of uvicorn's protocol.
    """

    def __init__(self, *args: Any, patience_s: float, unanswered: UnansweredBytes, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._patience_s = patience_s
        self._held = unanswered.connection(self._give_up)
        self._whole = self._last_call = False
        self._running: RequestResponseCycle | None = None  # the request that is being answered, not the newest one
        # Bytes of the present segment, and of the head in earlier segments.
        self._segment = self._head = 0
        # Bytes after the head beyond what the body and its chunks need.
        self._framing = 0
        # Where the parser is: in a head, in a body. After `_ended` nothing is parsed any more.
        self._heading = self._in_body = self._mixed = self._ended = False
        self._receiving: asyncio.TimerHandle | None = None
        self._sending: asyncio.TimerHandle | None = None
        self._idle_since: float | None = None

    # -- connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts the keep-alive timer, so that a connection without a request is closed too."""
        super().connection_made(transport)
        self._rest()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops the timers, and tells the request that is being answered. uvicorn tells the newest one alone."""
        running = self._running
        if running is not None and not running.response_complete:
            running.disconnected = True
            running.message_event.set()
        self._unset_keepalive_if_required()
        self._received()
        self._sent()
        self._held.close()
        self._ended = True
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
        """Closes an idle connection. One timer looks at it now and then, instead of one after each answer."""
        self.timeout_keep_alive_task = None
        if self._idle_since is None:
            return
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self.timeout_keep_alive_task = self.loop.call_later(left, self.timeout_keep_alive_handler)
            return
        super().timeout_keep_alive_handler()
        self._drop_later()

    def _rest(self) -> None:
        """Begins the time that the connection may be idle."""
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    # -- requests

    def data_received(self, data: bytes) -> None:
        """Parses a segment, and bounds the size of the head and the framing and the time of the request."""
        if self._ended:
            return
        self._whole = self._mixed = False
        self._segment = len(data)
        self._framing += len(data)
        self._idle_since = None
        self._parse(data)
        if self._ended or self.transport.is_closing():
            return
        if self._framing > FRAMING_MAX and not (self._whole or self._heading):
            self.transport.abort()
            return
        if self._heading:
            if not self._mixed:  # otherwise most of the segment belongs to the request before
                self._head += self._segment
            if self._head > HEAD_MAX:
                self._refuse(HeadTooLarge())
                return
        self._time()
        self._count()

    def _parse(self, data: bytes) -> None:
        while not self._ended:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                if not self._ended:
                    data = self._without_upgrade() + data[upgrade.args[0] :]
                    continue
            except httptools.HttpParserError:
                if not self._ended and not self.transport.is_closing():
                    self._refuse(BadRequest("these bytes are no HTTP request"))
            return

    def _without_upgrade(self) -> bytes:
        """Returns the head that was parsed, without its upgrade, for a parser that has not seen it."""
        head = without_upgrade(self.parser.get_method(), self.url, self.parser.get_http_version(), self.headers)
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's
        return head

    def _time(self) -> None:
        """Gives a request that is not here completely its time."""
        if self._whole:
            if self._receiving is not None:
                self._received()
        elif self._receiving is None:
            self._receiving = self.loop.call_later(self._patience_s, self._too_slow)

    def _count(self) -> None:
        """Counts the segment, as long as something of it is held."""
        if self._heading or (self.cycle is not None and not self.cycle.response_complete):
            self._held.add(self._segment, partial=not self._whole)
        else:
            self._held.release()

    def on_message_begin(self) -> None:
        """Begins a request."""
        self._whole = self._in_body = False
        self._heading = True
        self._framing = 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Takes a field of the head, and drops those behind a body: proxies do not check them (RFC 9110, 6.5.1)."""
        if self._in_body:
            return
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_body(self, body: bytes) -> None:
        """Takes a part of the body, and the framing that it may need."""
        self._framing -= _FRAMING * len(body)
        super().on_body(body)

    def on_headers_complete(self) -> None:
        """Checks the head, and the number of requests that wait for an answer."""
        method = self.parser.get_method()
        if self.parser.should_upgrade() and method != b"CONNECT":
            return  # the head is parsed again
        self._heading = False
        error = framing_error(self.parser.get_http_version(), self.headers)
        if method == b"CONNECT":
            error = BadRequest("this is no proxy: it connects to no other server")
        if error is not None:
            self._refuse(error)
            raise ConnectionAbortedError("the head was refused")  # ends the parser's work
        if len(self.headers) > HEADERS_MAX or len(self.url) > TARGET_MAX or self._head + self._segment > HEAD_MAX:
            error = size_error(self.url, self.headers)
            if error is not None:
                cast("dict[str, Any]", self.scope)[REFUSED] = error
        self._head = 0
        if len(self.pipeline) >= AHEAD_MAX:
            self.transport.abort()
            raise ConnectionAbortedError("too many requests were sent ahead")
        self._begin(method)
        self._in_body = True

    def _begin(self, method: bytes) -> None:
        """Begins the answer to the request whose head is here, as uvicorn's protocol does, with an `Exchange`."""
        scope, url, version = cast("dict[str, Any]", self.scope), self.url, self.parser.get_http_version()
        scope["method"] = method.decode("ascii")
        scope["http_version"] = version
        if _PLAIN_PATH.fullmatch(url):
            scope["path"], scope["raw_path"], scope["query_string"] = url.decode("ascii"), url, b""
        else:
            parsed = httptools.parse_url(url)
            scope["path"], scope["raw_path"] = unquote(parsed.path.decode("ascii")), parsed.path
            scope["query_string"] = parsed.query or b""
        before = self.cycle
        self.cycle = Exchange(
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=version != "1.0" and self.parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        if before is None or before.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:  # it was sent ahead
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def on_message_complete(self) -> None:
        """Ends a request."""
        if self._ended or self.parser.should_upgrade():
            return
        self._whole = self._mixed = True
        self._in_body = False
        super().on_message_complete()

    # -- requests that are refused

    def _refuse(self, error: ServiceError) -> None:
        """Ends the request that is being parsed, or the bytes that are none, with an error."""
        if self._ended or self.transport.is_closing():
            return
        if not self._in_body:
            # There is no request yet. One is made, which waits behind those before it.
            super().on_message_begin()
            self.url = _NO_TARGET
            self._begin(self.parser.get_method())
        self._answer_with(error)

    def _give_up(self, error: ServiceError) -> None:
        """Ends the newest request with an error, whether it is here completely or not; drops an unread answer."""
        if self._held.unread:
            self.transport.abort()
        elif self._heading or self._ended:
            self._refuse(error)
        else:
            self._answer_with(error)

    def _answer_with(self, error: ServiceError) -> None:
        """Ends the newest request with an error, and parses nothing that follows: where that begins is not known."""
        self._ended = True
        self._received()
        self._held.release()
        cycle = self.cycle
        cycle.keep_alive = False
        if cycle.response_complete:
            self.transport.close()
            self._drop_later()
            return
        cast("dict[str, Any]", cycle.scope)[REFUSED] = error
        cycle.body.clear()
        cycle.more_body = False
        cycle.message_event.set()

    def _received(self) -> None:
        if self._receiving is not None:
            self._receiving.cancel()
            self._receiving = None

    def _too_slow(self) -> None:
        self._receiving = None
        self._refuse(TooSlow("the request did not arrive in time"))

    # -- answers

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """Forgets the bytes of an answered request, and begins the next one."""
        if not self.pipeline and not self._heading:
            self._held.release()
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            self._drop_later()
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._rest()

    def pause_writing(self) -> None:
        """Starts the time-out of a client that does not read."""
        super().pause_writing()
        self._sent()
        self._sending = self.loop.call_later(self._patience_s, self.transport.abort)
        self._held.wait_for_reader(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """Stops the time-out: the client reads again."""
        self._sent()
        self._held.read()
        super().resume_writing()

    def _sent(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None

    def _drop_later(self) -> None:
        """Aborts a connection whose close waits for data that the client does not read."""
        self._sent()
        self._sending = self.loop.call_later(self._patience_s, self.transport.abort)
