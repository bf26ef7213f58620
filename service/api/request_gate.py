"""The request gate: what happens to every request, whatever its route. Pure ASGI."""

from __future__ import annotations

import time
from collections.abc import Callable

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api import api_version
from service.api.answer_body import AnswerBody
from service.api.bounded_body import BoundedBody, check_head, raise_refusal
from service.api.connection import REFUSED
from service.api.cors import Cors
from service.api.deprecated_call import DeprecatedCall
from service.api.direct_route import Direct
from service.api.exchange import WHOLE
from service.api.gate_answer import GateAnswer
from service.api.json_reply import JsonReply
from service.api.problems import problem
from service.api.senders import Senders, path_prefix
from service.common import logs
from service.common.deadline import Clock, waited
from service.common.errors import Draining, ServiceError
from service.common.request_context import RequestContext, request_id
from service.common.request_errors import Crowded
from service.guard.in_flight import InFlight
from service.metrics.service_metrics import Metrics
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
_NONE: Direct = {}
_NOTHING = Deprecations()


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
        answer = GateAnswer(send, call.request_id, self._draining, shown=method != "POST")
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

    async def _answer(self, scope: Scope, receive: Receive, send: Send, answer: GateAnswer) -> None:
        try:
            self._admit(scope)
            bounded = BoundedBody(receive, self._max_body_bytes, scope)
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
        raise_refusal(scope)
        if self._draining() and f"{scope['path']}/".startswith(f"{_OPERATORS}/"):
            raise Draining("shutting down")
        check_head(scope, self._max_body_bytes)

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
