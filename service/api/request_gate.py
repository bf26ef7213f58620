"""The request gate: what happens to every request, whatever its route. Pure ASGI."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from copy import copy

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api import api_version
from service.api.answer_body import COMPRESSED_FROM, AnswerBody
from service.api.connection import REFUSED
from service.api.cors import Cors
from service.api.deprecated_call import DeprecatedCall
from service.api.direct_route import Direct
from service.api.exchange import WHOLE, Whole
from service.api.json_reply import JsonReply
from service.api.problems import problem
from service.api.senders import Senders, path_prefix
from service.common import logs
from service.common.deadline import Clock, waited
from service.common.errors import Draining, ServiceError
from service.common.metrics import Metrics
from service.common.request_context import RequestContext, request_id
from service.common.request_errors import BodyTooLarge, Crowded, EncodedBody
from service.guard.in_flight import InFlight
from service.schemas.deprecations import Deprecations
from service.tracing import tracing

log = logs.get("service.requests")

# Probes and scrapes come every few seconds, and nobody asks what became of one of them.
_NOT_TRACED = frozenset({"/healthz", "/readyz", "/metrics"})
# Refused during a shutdown: operators watch and change a fleet, not a process that ends, and a model that is loaded now
# would be cut off. Everything else is answered as long as there is a connection, so that a proxy that has not seen
# /readyz fail yet, or a request that is on its way, costs nobody an error.
_OPERATORS = "/ops"
_UNMATCHED = "unmatched"
_WITHOUT_BODY = frozenset({"GET", "OPTIONS"})
_NONE: Direct = {}
_NOTHING = Deprecations()
# On every answer: a browser must not guess a content type, nor send the address of the page to other sites.
_SAFE = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]
# On answers that a browser may show or cache, unless the route sets its own. POST answers are neither.
_SHOWN = [
    (b"content-security-policy", b"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
]
# The same as header lines.
_SAFE_LINES = b"".join(b"%b: %b\r\n" % pair for pair in _SAFE)
_SHOWN_LINES = b"".join(b"%b: %b\r\n" % pair for pair in _SHOWN)
# Digits of a length that are read: more than any limit has.
_DIGITS = 20
# Status of a request whose client left before the answer began, as in nginx.
_CLIENT_GONE = 499
# Characters of a header that an error shows.
_SHOWN_MAX = 40
# Part of uvloop's message for a connection that closed while its answer was made.
_CLOSED = "handler is closed"


class RequestGate:
    """Gives each request its id and its beginning, bounds its body, measures, counts and logs it, adds safe headers.

    Args:
        app: The application behind the gate.
        metrics: Counts the requests.
        max_body_bytes: Largest body.
        draining: Whether the process is shutting down.
        direct: Routes that are called from here; the application finds all others.
        origins: Origins whose pages may call the API (`service.api.cors`).
        senders: Judges the peers that send requests; None trusts none.
        root_path: Path prefix under which the service is reached; requests may come with it or without.
        deprecations: What is deprecated.
        owner: Returns the name of the key or token that a request presents, "" for none.
        space: Chooses the space of a request, and returns what counts it; None where there is one space.
        clock: The monotonic clock, in seconds.
        wall_clock: The wall clock, in epoch seconds.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        max_body_bytes: int,
        draining: Callable[[], bool],
        direct: Direct = _NONE,
        origins: tuple[str, ...] = (),
        senders: Senders | None = None,
        root_path: str = "",
        deprecations: Deprecations = _NOTHING,
        owner: Callable[[Scope], str] = lambda _: "",
        space: Callable[[Scope, RequestContext], tuple[Metrics, InFlight | None]] | None = None,
        clock: Clock = time.monotonic,
        wall_clock: Clock = time.time,
    ) -> None:
        self._app = app
        self._metrics, self._space = metrics, space
        self._max_body_bytes = max_body_bytes
        self._draining = draining
        self._direct = direct
        self._clock, self._wall_clock = clock, wall_clock
        self._senders = senders or Senders()
        self._root_path = root_path
        self._deprecations, self._owner = deprecations or None, owner
        self._cors = Cors(self._shared, origins) if origins else None
        self._line = logs.RequestLine("service.requests")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request; other kinds of scope are passed on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        call, method = self._call(scope), scope["method"]
        scope.setdefault("state", {})["call"] = call
        if self._root_path and f"{scope['path']}/".startswith(f"{self._root_path}/"):
            scope["path"] = scope["path"].removeprefix(self._root_path) or "/"
        metrics, in_flight = (self._metrics, None) if self._space is None else self._space(scope, call)
        version = api_version.take_off(scope)
        call.prefix += version
        trace = None if scope["path"] in _NOT_TRACED else tracing.begin(call.headers, call.arrived)
        if trace is not None:
            call.facts["trace_id"] = trace.trace_id
        head = method == "HEAD"
        if head:
            # Answered as a GET. uvicorn reads the method of its own scope while it sends.
            scope = {**scope, "method": "GET"}
        answer = _Answer(send, call.request_id, self._draining, shown=method != "POST")
        if self._deprecations is not None:
            answer.deprecated = DeprecatedCall(self._deprecations, scope, call, version)
        elif self._cors is None and not head:
            answer.at_once = scope.get(WHOLE)
        if in_flight is not None:
            in_flight = await self._counted(in_flight, scope, call)
        metrics.inflight.inc()
        body = AnswerBody(answer, head=head, asked=scope["headers"])
        try:
            if in_flight is not None and REFUSED not in scope:
                await in_flight.turn()
            if self._cors is None:
                await self._answer(scope, receive, body, answer)
            else:
                scope["state"]["answer"] = answer
                await self._cors(scope, receive, body)
        finally:
            metrics.inflight.dec()
            if in_flight is not None:
                in_flight.end()
            if answer.deprecated is not None:
                answer.deprecated.count(metrics, self._owner)
            self._record(scope, method, call, answer.status, metrics, trace)

    async def _counted(self, in_flight: InFlight, scope: Scope, call: RequestContext) -> InFlight | None:
        """Counts a request among those of its space and notes what that means for it; None if it does not count."""
        if not in_flight.counts(scope["path"]):
            return None
        admission = in_flight.begin(scope["path"])
        if admission == "refused":
            scope.setdefault(REFUSED, Crowded())
            if not self._draining():
                await in_flight.hold()
            return None
        call.hurried = admission == "hurried"
        return in_flight

    def _call(self, scope: Scope) -> RequestContext:
        # Of several headers of one name the first one counts.
        now, headers = self._clock(), dict(reversed(scope["headers"]))
        wait_s, least_wait_s, prefix = 0.0, 0.0, self._root_path
        started, forwarded = headers.get(b"x-request-start"), headers.get(b"x-forwarded-prefix")
        if started is not None or forwarded is not None:
            sender = self._senders.of(scope)
            if started is not None and self._senders.tells_times(sender):
                wait = waited(started.decode("latin-1"), epoch_now=self._wall_clock())
                wait_s, least_wait_s = sender.waits.believed(wait), sender.waits.quickest
            if forwarded is not None and sender.trusted:
                prefix = path_prefix(forwarded.decode("latin-1")) or prefix
        known = request_id(headers.get(b"x-request-id"))
        client = scope.get("client")
        caller = f"address:{client[0]}" if client else ""
        return RequestContext(known, now - wait_s, now, self._clock, least_wait_s, caller, prefix, headers=headers)

    async def _shared(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Calls `_answer` inside the CORS middleware, since errors need its headers too."""
        await self._answer(scope, receive, send, scope["state"]["answer"])

    async def _answer(self, scope: Scope, receive: Receive, send: Send, answer: _Answer) -> None:
        try:
            self._admit(scope)
            bounded = _Bounded(receive, self._max_body_bytes, scope)
            route = self._direct.get((scope["method"], scope["path"]))
            if route is None:
                await self._app(scope, bounded, send)
                return
            # The application would only find this route, and handle errors that are handled here.
            scope["route"] = route
            response = await route.endpoint(Request(scope, bounded, send))
            if not (isinstance(response, JsonReply) and await answer.whole(response)):
                await response(scope, bounded, send)
        except ServiceError as error:
            if answer.started:
                raise
            await problem(error, answer.request_id)(scope, receive, send)
        except ClientDisconnect:
            return  # the client left before its body arrived
        except Exception as error:
            log.error("request_failed", request_id=answer.request_id, **logs.where(error))
            if answer.started:
                raise
            await problem(ServiceError(), answer.request_id)(scope, receive, send)

    def _admit(self, scope: Scope) -> None:
        _raise_refusal(scope)
        if self._draining() and f"{scope['path']}/".startswith(f"{_OPERATORS}/"):
            raise Draining("shutting down")
        headers = scope["state"]["call"].headers
        length = headers.get(b"content-length")
        # Python refuses to convert thousands of digits.
        if length is not None and length.isdigit() and int(length.lstrip(b"0")[:_DIGITS] or 0) > self._max_body_bytes:
            raise too_large(self._max_body_bytes)
        if b"content-encoding" in headers and scope["method"] not in _WITHOUT_BODY:
            refuse_encoded(scope["headers"])

    def _record(
        self,
        scope: Scope,
        method: str,
        call: RequestContext,
        status: int,
        metrics: Metrics,
        trace: tracing.Trace | None,
    ) -> None:
        route = getattr(scope.get("route"), "path_format", _UNMATCHED)
        now = self._clock()
        took = now - call.arrived
        metrics.answered(route, status, call.source, took, tracing.exemplar())
        if trace is not None:
            tracing.answered(trace, method, route, status, call.facts, now)
        if not self._line.on:
            return
        self._line.write(
            request_id=call.request_id,
            method=method,
            route=route,
            status=status,
            ms=round(took * 1000.0, 3),
            **call.facts,
        )


class _Answer:
    """The `send` of a request: adds the request's id and the safe headers to the answer, and notes its status.

    While the process shuts down, an answer ends its connection, so that the client's next request goes to another
    process.
    """

    def __init__(self, send: Send, request_id: str, draining: Callable[[], bool], *, shown: bool) -> None:
        self._send, self._draining, self._shown = send, draining, shown
        self.request_id = request_id
        self.status = _CLIENT_GONE
        self.deprecated: DeprecatedCall | None = None
        # Sends an answer in one piece; None if the server cannot, or there is more to do with the answer.
        self.at_once: Whole | None = None

    @property
    def started(self) -> bool:
        return self.status != _CLIENT_GONE

    async def whole(self, reply: JsonReply) -> bool:
        """Sends an answer in one piece; returns whether that could be done."""
        if self.at_once is None or len(reply.body) >= COMPRESSED_FROM or (own := reply.lines()) is None:
            return False
        self.status = reply.status_code
        lines = b"%b%bx-request-id: %b\r\n" % (own, _SAFE_LINES, self.request_id.encode("ascii"))
        try:
            await self.at_once(
                self.status, lines + _SHOWN_LINES if self._shown else lines, reply.body, self._draining()
            )
        except RuntimeError as error:
            self._gone(error)
        return True

    def _gone(self, error: RuntimeError) -> None:
        """Raises what an answer that could not be sent means."""
        if _CLOSED not in str(error):
            raise error
        self.status = _CLIENT_GONE
        raise ClientDisconnect from error

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            given = message.get("headers", ())
            headers = [*given, *_SAFE, (b"x-request-id", self.request_id.encode("ascii"))]
            if self._shown:
                names = {name for name, _ in given}
                headers += [(name, value) for name, value in _SHOWN if name not in names]
            message["headers"] = headers
            if self.deprecated is not None:
                headers += self.deprecated.headers()
            if self._draining():
                headers.append((b"connection", b"close"))
        try:
            await self._send(message)
        except RuntimeError as error:
            self._gone(error)


class _Bounded:
    """The `receive` of a request: refuses to read more than `most` bytes, and what its connection refuses."""

    def __init__(self, receive: Receive, most: int, scope: Scope) -> None:
        self._receive, self._most, self._scope, self._read = receive, most, scope, 0

    async def __call__(self) -> Message:
        message = await self._receive()
        _raise_refusal(self._scope)
        self._read += len(message.get("body", b""))
        if self._read > self._most:
            raise too_large(self._most)
        return message


def _raise_refusal(scope: Scope) -> None:
    """Raises the error with which the connection refuses the request, if it does.

    It raises a copy: an error that was raised keeps its frames, and with them the body, as long as the scope is kept.
    """
    if REFUSED in scope:
        raise copy(scope[REFUSED])


def too_large(most: int) -> BodyTooLarge:
    """Returns the error for a body of more than `most` bytes."""
    return BodyTooLarge(f"the body is larger than {most} bytes")


def refuse_encoded(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Raises EncodedBody if a request says that its body is encoded."""
    for name, value in headers:
        if name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            shown = value[:_SHOWN_MAX].decode("ascii", "replace")
            raise EncodedBody(f"Content-Encoding: {shown} is not read; send the body as plain JSON, without the header")
