"""Traces as spans of the OpenTelemetry SDK, sent to a collector over OTLP/HTTP. Imported only where traces are on.

The SDK decides which traces are kept, and its batch processor sends them from a thread of its own: a queue that is full
drops spans, and a collector that is away costs spans, never a request. The standard variables `OTEL_EXPORTER_OTLP_…`
(headers, certificates, compression, time-out), `OTEL_BSP_…` (sizes of the queue and of batches),
`OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME` are the SDK's own, and count here too.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from typing import Any

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service.common import logs

log = logs.get(__name__)

# The kinds of stages; all others are steps inside the process.
_KINDS = {"store": SpanKind.CLIENT}
_FAILED = Status(StatusCode.ERROR)
_NO_CONTEXT = Context()
_SERVER_ERROR = 500


class OtelTrace:
    """A span of the SDK and its stages."""

    __slots__ = ("_context", "_offset_ns", "_otel", "_span", "sampled", "trace_id")

    def __init__(self, otel: OtelTracer, span: Span, offset_ns: int) -> None:
        """Wraps a span that has begun.

        Args:
            otel: Makes its stages.
            span: The span.
            offset_ns: What to add to monotonic nanoseconds to get those of the epoch.
        """
        named = span.get_span_context()
        self._otel, self._span, self._offset_ns = otel, span, offset_ns
        self._context: Context | None = None
        self.sampled = named.trace_flags.sampled
        self.trace_id = format(named.trace_id, "032x")

    def carrier(self) -> dict[str, str]:
        """Returns the fields that continue the trace elsewhere."""
        fields: dict[str, str] = {}
        _PROPAGATOR.inject(fields, self._here())
        return fields

    def stage(self, name: str, began: float, ended: float, left_s: float | None, **attributes: Any) -> None:
        """Makes a span of a stage that has ended."""
        if not self.sampled:
            return
        try:
            self._stage(name, began, ended, left_s, attributes)
        except Exception as error:  # the threads of the engine call it, and must go on
            log.error("span_lost", **logs.where(error))

    def _stage(self, name: str, began: float, ended: float, left_s: float | None, attributes: dict[str, Any]) -> None:
        error = attributes.pop("error", None)
        said = {f"gpt4rec.{key}": value for key, value in attributes.items()}
        if left_s is not None:
            said["gpt4rec.deadline_left_ms"] = round(1000.0 * left_s, 3)
        if error is not None:
            said["error.type"] = error
        span = self._otel.tracer.start_span(
            name, self._here(), _KINDS.get(name, SpanKind.INTERNAL), said, start_time=self._ns(began)
        )
        if error is not None:
            span.set_status(_FAILED)
        span.end(self._ns(ended))

    def note(self, **attributes: Any) -> None:
        """Adds attributes to the span."""
        self._span.set_attributes(attributes)
        if "error.type" in attributes or attributes.get("http.response.status_code", 0) >= _SERVER_ERROR:
            self._span.set_status(_FAILED)

    def end(self, name: str, ended: float) -> None:
        """Ends the span under this name."""
        if self.sampled:
            self._span.update_name(name)
        self._span.end(self._ns(ended))

    def _here(self) -> Context:
        if self._context is None:
            self._context = set_span_in_context(self._span, _NO_CONTEXT)
        return self._context

    def _ns(self, seconds: float) -> int:
        return int(seconds * 1e9) + self._offset_ns


class OtelTracer:
    """Begins traces, and sends what is kept of them."""

    def __init__(self, share: float, exporter: SpanExporter) -> None:
        """Starts the thread that sends spans.

        Args:
            share: Share of the traces that begin here which are kept. A trace that begins elsewhere is kept if its
                caller keeps it.
            exporter: Sends spans.
        """
        # Whether a trace that begins here is kept is decided before the SDK makes anything for it: most are not.
        self._share = share
        self._provider = TracerProvider(sampler=ParentBased(ALWAYS_ON), resource=_resource(), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self.tracer = self._provider.get_tracer("gpt4rec")

    def request(self, headers: Mapping[bytes, bytes], began: float) -> OtelTrace | None:
        """Begins the span of a request, as a child of its caller's if the headers name one.

        Returns None if the trace begins here and is not kept.
        """
        context = _NO_CONTEXT
        if b"traceparent" in headers:
            context = _context_of(
                {
                    name: headers[name.encode()].decode("latin-1")
                    for name in ("traceparent", "tracestate")
                    if name.encode() in headers
                }
            )
        if not context and random.random() >= self._share:  # noqa: S311 - a sample, not a secret
            return None
        return self._begun("request", context, SpanKind.SERVER, began)

    def work(self, name: str, fields: Mapping[str, str]) -> OtelTrace | None:
        """Begins a span below the one that the fields name; returns None if they name none."""
        context = _context_of(fields)
        return self._begun(name, context, SpanKind.CONSUMER, time.monotonic()) if context else None

    def _begun(self, name: str, context: Context, kind: SpanKind, began: float) -> OtelTrace:
        offset_ns = time.time_ns() - time.monotonic_ns()
        span = self.tracer.start_span(name, context, kind, start_time=int(began * 1e9) + offset_ns)
        return OtelTrace(self, span, offset_ns)

    def flush(self) -> None:
        """Sends what waits now; returns when that is done."""
        self._provider.force_flush()

    def close(self, timeout_s: float) -> None:
        """Sends what waits, for at most so many seconds: a collector that is away must not hold up a shutdown."""
        last = threading.Thread(target=self._provider.shutdown, name="traces-close", daemon=True)
        last.start()
        last.join(timeout_s)


class CountedExporter(SpanExporter):
    """Sends spans, and tells how many arrived and how many did not."""

    def __init__(self, inner: SpanExporter, tell: Callable[[str, int], None]) -> None:
        """Wraps an exporter; `tell` is called with `exported` or `failed` and the number of spans."""
        self._inner, self._tell = inner, tell

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Sends spans."""
        outcome = SpanExportResult.FAILURE
        try:
            outcome = self._inner.export(spans)
        finally:
            self._tell("exported" if outcome is SpanExportResult.SUCCESS else "failed", len(spans))
        return outcome

    def shutdown(self) -> None:
        """Stops sending."""
        self._inner.shutdown()


_PROPAGATOR = TraceContextTextMapPropagator()


def otlp(endpoint: str | None) -> SpanExporter:
    """Returns an exporter to a collector.

    Args:
        endpoint: Its URL for traces; None takes it from `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` or
            `OTEL_EXPORTER_OTLP_ENDPOINT`.
    """
    return OTLPSpanExporter(endpoint=endpoint)


def _resource() -> Resource:
    """What sends the spans, as the environment names it; where that names none, by the name of the service."""
    found = Resource.create()
    own = {"service.version": metadata.version("gpt4rec")}
    if str(found.attributes["service.name"]).startswith("unknown_service"):
        found = found.merge(Resource({"service.name": "gpt4rec"}))
    return Resource(own).merge(found)


def _context_of(fields: Mapping[str, str]) -> Context:
    """The context of a caller; empty if its fields are not valid."""
    return _PROPAGATOR.extract(fields, _NO_CONTEXT)
