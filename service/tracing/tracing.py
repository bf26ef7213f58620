"""The trace of the work under way. Free of OpenTelemetry, and free of cost while traces are off.

The gate begins a trace for a request (`begin`), rooms note their stages in it (`span`, `sampled`), and it travels with
the work: tasks of the event loop inherit it, jobs of the batchers carry it, and entries of streams carry its names to
other processes (`carrier`, `continued`). `service.tracing.otel` makes spans of it.

    with tracing.span("store", deadline, "read"):
        ...
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Protocol

from service.common.deadline import Deadline

# What a trace may say, besides times and codes: none of it is about a person, and none of it is a secret.
_FACTS = ("source", "rung", "reason", "strategy", "segment", "k", "space")


class Trace(Protocol):
    """A request, or work that goes on in another process, and the stages in it. Safe to use from several threads."""

    @property
    def trace_id(self) -> str:
        """The id of the trace, in 32 hexadecimal digits."""

    @property
    def sampled(self) -> bool:
        """Whether its spans are kept."""

    def carrier(self) -> dict[str, str]:
        """Returns the fields that continue the trace elsewhere: `traceparent`, and `tracestate` if there is one."""

    def stage(self, name: str, began: float, ended: float, left_s: float | None, **attributes: Any) -> None:
        """Notes a stage that has ended.

        Args:
            name: Its name.
            began: When it began, in monotonic seconds.
            ended: When it ended.
            left_s: Seconds left of the deadline when it ended, negative after it; None if there is no deadline.
            attributes: What else is known of it; `error` is the name of an exception that ended it.
        """

    def note(self, **attributes: Any) -> None:
        """Adds what is known of the whole."""

    def end(self, name: str, ended: float) -> None:
        """Ends it; stages may still be noted.

        Args:
            name: What it was.
            ended: When it ended, in monotonic seconds.
        """


class Tracer(Protocol):
    """Begins traces."""

    def request(self, headers: Mapping[bytes, bytes], began: float) -> Trace | None:
        """Begins the trace of a request, or continues that of its caller; returns None if it is not kept."""

    def work(self, name: str, fields: Mapping[str, str]) -> Trace | None:
        """Continues a trace of another process; returns None if the fields name none."""


_CURRENT: ContextVar[Trace | None] = ContextVar("gpt4rec_trace", default=None)
# The tracer of the process, if traces are on.
_TRACER: list[Tracer] = []
_NOTHING: AbstractContextManager[None] = nullcontext()


def switch_on(tracer: Tracer) -> None:
    """Begins traces with this tracer from now on."""
    _TRACER.insert(0, tracer)


def switch_off(tracer: Tracer) -> None:
    """Begins no more traces with this tracer."""
    if tracer in _TRACER:
        _TRACER.remove(tracer)


def current() -> Trace | None:
    """Returns the trace of the work under way; None if there is none."""
    return _CURRENT.get()


def sampled() -> Trace | None:
    """Returns the trace of the work under way if its spans are kept, for work that goes on in a thread."""
    trace = _CURRENT.get()
    return trace if trace is not None and trace.sampled else None


def begin(headers: Mapping[bytes, bytes], began: float) -> Trace | None:
    """Begins the trace of a request, which is the work under way from now on.

    Returns None if traces are off, or if it begins here and is not kept.

    Args:
        headers: Of the request, by their names in lower case.
        began: When it began, in monotonic seconds.
    """
    if not _TRACER:
        return None
    trace = _TRACER[0].request(headers, began)
    _CURRENT.set(trace)
    return trace


def answered(trace: Trace, method: str, route: str, status: int, facts: Mapping[str, Any], ended: float) -> None:
    """Ends the trace of a request.

    Args:
        trace: The trace.
        method: The HTTP method.
        route: The path of the route, with placeholders.
        status: The HTTP status of the answer.
        facts: What the log line says; the trace takes what it may say from it.
        ended: When the answer had left, in monotonic seconds.
    """
    _CURRENT.set(None)
    if trace.sampled:
        said = {f"gpt4rec.{name}": value for name in _FACTS if (value := facts.get(name)) is not None}
        trace.note(**{"http.request.method": method, "http.route": route, "http.response.status_code": status}, **said)
    trace.end(f"{method} {route}", ended)


def budget_left(left_s: float) -> None:
    """Notes how much of the deadline of the request under way is left, in seconds; negative after it."""
    trace = _CURRENT.get()
    if trace is not None and trace.sampled:
        trace.note(**{"gpt4rec.deadline_left_ms": round(1000.0 * left_s, 3)})


def exemplar() -> dict[str, str] | None:
    """Returns the labels of an exemplar for what is measured now; None if no spans of it are kept."""
    trace = sampled()
    return None if trace is None else {"trace_id": trace.trace_id}


def span(name: str, deadline: Deadline | None = None, operation: str = "") -> AbstractContextManager[None]:
    """Returns a context that notes its body as a stage of the work under way, also when it fails.

    Args:
        name: Name of the stage.
        deadline: What its body has to keep to.
        operation: What it does there.
    """
    trace = sampled()
    return _NOTHING if trace is None else _Span(trace, name, deadline, operation)


def carrier() -> dict[str, str]:
    """Returns the fields that continue the trace of the work under way in another process; empty if there is none."""
    trace = _CURRENT.get()
    return {} if trace is None else trace.carrier()


def continued(fields: Mapping[str, str] | Mapping[bytes, bytes], name: str = "consume") -> AbstractContextManager[None]:
    """Returns a context whose body continues the trace that the fields name; it does nothing if they name none.

    Tasks that are created in the body belong to the trace as well.

    Args:
        fields: What `carrier` returned elsewhere; other fields beside them are ignored. They may be bytes.
        name: Name of the span of the body.
    """
    if not _TRACER:
        return _NOTHING
    named = {key: value for key in ("traceparent", "tracestate") if (value := _field(fields, key)) is not None}
    trace = _TRACER[0].work(name, named) if "traceparent" in named else None
    return _NOTHING if trace is None else _Continued(trace, name)


def _field(fields: Mapping[Any, Any], name: str) -> str | None:
    value = fields.get(name)
    if value is None:
        value = fields.get(name.encode())
    return value.decode("latin-1") if isinstance(value, bytes) else value


class _Span:
    __slots__ = ("_attributes", "_began", "_deadline", "_name", "_trace")

    def __init__(self, trace: Trace, name: str, deadline: Deadline | None, operation: str) -> None:
        self._trace, self._name, self._deadline = trace, name, deadline
        self._attributes = {"operation": operation} if operation else {}

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, kind: type[BaseException] | None, error: object, at: TracebackType | None) -> None:
        if kind is not None:
            self._attributes["error"] = kind.__name__
        ended, until = time.monotonic(), self._deadline
        left_s = None if until is None else until.at - until.clock()
        self._trace.stage(self._name, self._began, ended, left_s, **self._attributes)


class _Continued:
    __slots__ = ("_name", "_trace")

    def __init__(self, trace: Trace, name: str) -> None:
        self._trace, self._name = trace, name

    def __enter__(self) -> None:
        _CURRENT.set(self._trace)

    def __exit__(self, kind: type[BaseException] | None, error: object, at: TracebackType | None) -> None:
        _CURRENT.set(None)
        if kind is not None:
            self._trace.note(**{"error.type": kind.__name__})
        self._trace.end(self._name, time.monotonic())
