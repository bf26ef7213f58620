"""Receives spans over OTLP/HTTP and writes each as a line: `python -m loadtests.harness.otlp_receiver PORT FILE`.

The messages are read with the protocol's own classes (`opentelemetry-proto`), which come with the exporter.
"""

from __future__ import annotations

import gzip
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

import orjson
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


def spans_of(body: bytes) -> Iterator[dict[str, Any]]:
    """Yields the spans of a message as plain values."""
    for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        resource = _plain(of_resource.resource.attributes)
        for scope in of_resource.scope_spans:
            for span in scope.spans:
                yield {
                    "name": span.name,
                    "trace_id": span.trace_id.hex(),
                    "span_id": span.span_id.hex(),
                    "parent_id": span.parent_span_id.hex(),
                    "service": resource.get("service.name"),
                    "began_ns": span.start_time_unix_nano,
                    "ended_ns": span.end_time_unix_nano,
                    "attributes": _plain(span.attributes),
                }


def _plain(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value") or "string_value") for one in attributes}


def receiver(port: int, out: BinaryIO) -> ThreadingHTTPServer:
    """Returns a server on a port of the loopback interface that writes the spans it is sent."""
    writing = Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(b"")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            lines = b"".join(orjson.dumps(span) + b"\n" for span in spans_of(body))
            with writing:
                out.write(lines)
                out.flush()
            # An empty answer of the protocol says that all spans were taken.
            self._answer(b"")

        def _answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


if __name__ == "__main__":
    with Path(sys.argv[2]).open("ab") as file:
        receiver(int(sys.argv[1]), file).serve_forever()
