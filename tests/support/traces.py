"""Traces that a test can look at: the SDK with an exporter that keeps spans in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from service.tracing import tracing
from service.tracing.otel import OtelTracer
from tests.support.aio import eventually


@dataclass(frozen=True)
class Seen:
    """A span that has ended; times are in nanoseconds of the epoch, `parent` is 0 for none."""

    name: str
    kind: str
    trace_id: str
    tracestate: str
    span_id: int
    parent: int
    began: int
    ended: int
    failed: bool
    attributes: dict[str, Any]
    resource: dict[str, Any]
    text: str

    @classmethod
    def of(cls, span: ReadableSpan) -> Seen:
        assert span.context is not None
        assert span.start_time is not None
        assert span.end_time is not None
        return cls(
            name=span.name,
            kind=span.kind.name,
            trace_id=format(span.context.trace_id, "032x"),
            tracestate=span.context.trace_state.to_header(),
            span_id=span.context.span_id,
            parent=0 if span.parent is None else span.parent.span_id,
            began=span.start_time,
            ended=span.end_time,
            failed=span.status.status_code is StatusCode.ERROR,
            attributes=dict(span.attributes or {}),
            resource=dict(span.resource.attributes),
            text=span.to_json(),
        )


class Spans:
    """The spans that were made so far."""

    def __init__(self, tracer: OtelTracer, exporter: InMemorySpanExporter) -> None:
        self._tracer, self._exporter = tracer, exporter

    def all(self) -> list[Seen]:
        self._tracer.flush()
        return [Seen.of(span) for span in self._exporter.get_finished_spans()]

    def names(self) -> list[str]:
        return sorted(span.name for span in self.all())

    async def reach(self, spans: int) -> None:
        """Waits for so many spans: the engine's threads note theirs when the answer is on its way."""

        async def there() -> bool:
            return len(self.all()) >= spans

        await eventually(there, within_s=30.0)

    def one(self, name: str) -> Seen:
        (span,) = [span for span in self.all() if span.name == name]
        return span


@contextmanager
def traced(share: float = 1.0) -> Iterator[Spans]:
    """Traces of this process are on in the block."""
    exporter = InMemorySpanExporter()
    tracer = OtelTracer(share, exporter)
    tracing.switch_on(tracer)
    try:
        yield Spans(tracer, exporter)
    finally:
        tracing.switch_off(tracer)
        tracer.close(10.0)
