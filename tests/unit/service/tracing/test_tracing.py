"""The trace of the work under way: nothing where traces are off, spans of the SDK where they are on."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time

import pytest
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from service.common.deadline import Deadline
from service.tracing import tracing
from service.tracing.otel import CountedExporter, OtelTracer
from tests.support.aio import asynchronous
from tests.support.traces import traced

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def headers(**named: str) -> dict[bytes, bytes]:
    return {name.encode(): value.encode() for name, value in named.items()}


def test_a_process_without_traces_imports_neither_the_sdk_of_traces_nor_an_exporter() -> None:
    # FastAPI and redis-py import the API, and the SDK of metrics, themselves.
    code = (
        "import sys; import service.app; from service.settings.service_settings import Settings;"
        "service.app.create_app(Settings()); from service.tracing import tracing;"
        "assert tracing.begin({}, 0.0) is None;"
        "unwanted = ('opentelemetry.sdk.trace', 'opentelemetry.exporter', 'service.tracing.otel');"
        "print([name for name in sys.modules if name.startswith(unwanted)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"


def test_without_a_trace_every_call_does_nothing() -> None:
    assert tracing.begin(headers(traceparent=CALLER), 0.0) is None
    assert tracing.current() is None
    assert tracing.sampled() is None
    assert tracing.exemplar() is None
    assert tracing.carrier() == {}
    tracing.budget_left(1.0)
    # The same object each time: nothing is made for a stage that nobody notes.
    assert tracing.span("store", None, "read") is tracing.span("queue") is tracing.continued({"traceparent": CALLER})
    with tracing.span("store"):
        pass


def test_a_request_and_its_stages_are_spans_of_one_trace_with_the_times_that_were_measured() -> None:
    with traced() as spans:
        began = time.monotonic()
        trace = tracing.begin({}, began)
        assert trace is not None
        deadline = Deadline.after(5.0)
        with tracing.span("store", deadline, "read"):
            pass
        trace.stage("decode", began + 0.010, began + 0.030, 0.050, batch_rows=3)
        tracing.budget_left(0.04)
        facts = {"rung": "full", "source": "gpt4rec", "segment": "new", "reason": None, "caller": "shop"}
        tracing.answered(trace, "POST", "/recommend", 200, facts, began + 0.040)
        assert tracing.current() is None
        store, decode, request = (spans.one(name) for name in ("store", "decode", "POST /recommend"))
    assert request.parent == 0
    assert request.kind == "SERVER"
    assert {span.trace_id for span in (store, decode, request)} == {trace.trace_id}
    assert {store.parent, decode.parent} == {request.span_id}
    assert store.kind == "CLIENT"
    assert store.attributes["gpt4rec.operation"] == "read"
    assert 0 < store.attributes["gpt4rec.deadline_left_ms"] <= 5000
    assert decode.ended - decode.began == pytest.approx(20e6, abs=1e3)
    assert decode.began - request.began == pytest.approx(10e6, abs=1e3)
    assert abs(request.began - time.time_ns()) < 60e9
    assert decode.attributes == {"gpt4rec.batch_rows": 3, "gpt4rec.deadline_left_ms": 50.0}
    assert request.attributes == {
        "gpt4rec.deadline_left_ms": 40.0, "gpt4rec.rung": "full", "gpt4rec.source": "gpt4rec",
        "gpt4rec.segment": "new", "http.request.method": "POST", "http.route": "/recommend",
        "http.response.status_code": 200,
    }  # fmt: skip


def test_the_caller_of_a_request_decides_whether_its_trace_is_kept_and_what_it_is_called() -> None:
    with traced(share=0.0) as spans:
        kept = tracing.begin(headers(traceparent=CALLER, tracestate="shop=1"), 0.0)
        assert kept is not None
        assert kept.sampled
        assert kept.trace_id == CALLER.split("-")[1]
        passed_on = tracing.carrier()
        tracing.answered(kept, "GET", "/version", 200, {}, 1.0)
        request = spans.one("GET /version")
    assert request.parent == int(CALLER.split("-")[2], 16)
    assert passed_on == {
        "traceparent": f"00-{kept.trace_id}-{request.span_id:016x}-01",
        "tracestate": "shop=1",
    }


def test_a_trace_that_is_not_kept_keeps_its_id_on_the_way() -> None:
    with traced(share=1.0) as spans:
        trace = tracing.begin(headers(traceparent=CALLER[:-1] + "0"), 0.0)
        assert trace is not None
        assert not trace.sampled
        assert tracing.sampled() is None
        assert tracing.exemplar() is None
        with tracing.span("store"):
            pass
        carrier = tracing.carrier()
        tracing.answered(trace, "GET", "/version", 200, {}, 1.0)
        assert spans.all() == []
    version, trace_id, _, flags = carrier["traceparent"].split("-")
    assert (version, trace_id, flags) == ("00", CALLER.split("-")[1], "00")


@pytest.mark.parametrize("given", ["", "nonsense", "00-" + "0" * 32 + "-b7ad6b7169203331-01", CALLER + "-more", "ÿ"])
def test_a_malformed_traceparent_is_as_none(given: str) -> None:
    with traced():
        trace = tracing.begin({b"traceparent": given.encode("latin-1")}, 0.0)
        assert trace is not None
        assert trace.trace_id not in ("0" * 32, CALLER.split("-")[1])
        tracing.answered(trace, "GET", "/", 200, {}, 1.0)
        assert tracing.continued({"traceparent": given}) is tracing.continued({})


@asynchronous
async def test_work_of_another_process_continues_the_trace_and_its_tasks_belong_to_it() -> None:
    with traced() as spans:
        trace = tracing.begin({}, time.monotonic())
        assert trace is not None
        fields = {b"user": b"u", **{key.encode(): value.encode() for key, value in tracing.carrier().items()}}
        tracing.answered(trace, "POST", "/events", 200, {}, time.monotonic())

        async def encode() -> None:
            await asyncio.sleep(0)
            with tracing.span("encode"):
                pass

        with tracing.continued(fields):
            task = asyncio.get_running_loop().create_task(encode())
        assert tracing.current() is None
        await task
        request, consume, encoded = (spans.one(name) for name in ("POST /events", "consume", "encode"))
    assert consume.kind == "CONSUMER"
    assert consume.parent == request.span_id
    assert encoded.parent == consume.span_id
    assert len({span.trace_id for span in (request, consume, encoded)}) == 1


def test_a_failure_is_marked_by_its_kind_without_its_text() -> None:
    with traced() as spans:
        trace = tracing.begin({}, time.monotonic())
        assert trace is not None
        with pytest.raises(KeyError), tracing.span("store"):
            raise KeyError("user-4711")
        with pytest.raises(KeyError), tracing.continued(tracing.carrier(), "work"):
            raise KeyError("user-4711")
        tracing.answered(trace, "POST", "/recommend", 503, {}, time.monotonic())
        for name in ("store", "work", "POST /recommend"):
            span = spans.one(name)
            assert span.failed
            assert "user-4711" not in span.text
        assert spans.one("store").attributes["error.type"] == "KeyError"


def test_the_environment_names_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    def resource() -> dict[str, object]:
        with traced() as spans:
            trace = tracing.begin({}, 0.0)
            assert trace is not None
            tracing.answered(trace, "GET", "/", 200, {}, 1.0)
            return spans.one("GET /").resource

    assert resource()["service.name"] == "gpt4rec"
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop-lists")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    named = resource()
    assert (named["service.name"], named["deployment.environment.name"]) == ("shop-lists", "test")
    assert named["service.version"]


class Stuck(SpanExporter):
    """A collector that does not answer."""

    def __init__(self) -> None:
        self.go = threading.Event()

    def export(self, spans: object) -> SpanExportResult:  # noqa: ARG002
        self.go.wait(60.0)
        return SpanExportResult.FAILURE

    def shutdown(self) -> None:
        pass


def test_a_collector_that_is_stuck_holds_up_neither_requests_nor_the_shutdown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "8")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")
    stuck, told = Stuck(), []
    tracer = OtelTracer(1.0, CountedExporter(stuck, lambda outcome, n: told.append((outcome, n))))
    tracing.switch_on(tracer)
    try:
        for _ in range(100):
            trace = tracing.begin({}, 0.0)
            assert trace is not None
            tracing.answered(trace, "GET", "/", 200, {}, 1.0)
        tracer.close(0.05)
        assert told == []
    finally:
        tracing.switch_off(tracer)
        stuck.go.set()
    until = time.monotonic() + 60.0
    while not told and time.monotonic() < until:
        time.sleep(0.01)
    assert {outcome for outcome, _ in told} == {"failed"}
    assert sum(n for _, n in told) <= 16, "the queue is bounded"
