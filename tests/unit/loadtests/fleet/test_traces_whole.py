"""Which traces count as whole, and what a receiver makes of the protocol's messages."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from loadtests.fleet.traces import WHOLE, fault, service_of
from loadtests.harness.otlp_receiver import spans_of

CALLER = "b7ad6b7169203331"


def whole() -> list[dict[str, Any]]:
    return [
        {"name": name, "span_id": name, "parent_id": parent or CALLER, "service": service_of(role)}
        for name, (parent, role) in WHOLE.items()
    ]


def test_a_trace_is_whole_with_every_span_in_its_place() -> None:
    assert fault(whole()) is None
    assert fault(list(reversed(whole()))) is None


@pytest.mark.parametrize("name", WHOLE)
def test_a_trace_without_a_span_or_with_one_elsewhere_is_not_whole(name: str) -> None:
    assert fault([span for span in whole() if span["name"] != name]) == f"without {name}"
    stray = [{**span, "parent_id": "other"} if span["name"] == name else span for span in whole()]
    assert "hangs under something else" in (fault(stray) or "")
    foreign = [{**span, "service": "other"} if span["name"] == name else span for span in whole()]
    assert fault(foreign) == f"{name} comes from other"
    assert fault([*whole(), {**whole()[0], "span_id": "twice"}]) is not None


def test_the_receiver_reads_what_the_exporter_writes() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    with tracer.start_as_current_span("outer"), tracer.start_as_current_span("inner") as inner:
        inner.set_attributes({"gpt4rec.k": 10, "gpt4rec.rung": "full", "gpt4rec.left": 1.5, "on": True})
    body = encode_spans(exporter.get_finished_spans()).SerializeToString()
    found = {span["name"]: span for span in spans_of(body)}
    assert found["inner"]["parent_id"] == found["outer"]["span_id"]
    assert found["outer"]["parent_id"] == ""
    assert found["inner"]["trace_id"] == found["outer"]["trace_id"]
    assert len(found["inner"]["trace_id"]) == 32
    assert found["inner"]["attributes"] == {"gpt4rec.k": 10, "gpt4rec.rung": "full", "gpt4rec.left": 1.5, "on": True}
    assert found["inner"]["began_ns"] <= found["inner"]["ended_ns"]
