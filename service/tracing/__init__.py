"""Spans of requests: the trace of the work under way, and the OpenTelemetry SDK behind it where traces are on."""
