"""The record of a request is the line that a logger would write, and no other way round it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from service.common import logs

FIELDS = st.dictionaries(
    st.sampled_from(["status", "route", "caller"]), st.none() | st.integers() | st.floats(allow_nan=False) | st.text()
)


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    logs.configure("info", stream)
    yield stream
    structlog.reset_defaults()


def records(stream: io.StringIO) -> list[list[tuple[str, Any]]]:
    """The records with their fields in order, and of the time its length alone."""
    found = [orjson.loads(line) for line in stream.getvalue().split("\n") if line]  # a text may hold U+2028
    return [[(name, len(value) if name == "timestamp" else value) for name, value in one.items()] for one in found]


@given(FIELDS)
def test_the_line_of_a_request_is_that_of_a_logger(fields: dict[str, Any]) -> None:
    stream = io.StringIO()
    logs.configure("info", stream)
    try:
        logs.RequestLine("some.module").write(**fields)
        logs.get("some.module").info("request", **fields)
    finally:
        structlog.reset_defaults()
    fast, slow = records(stream)
    assert fast == slow


def test_a_test_that_looks_at_records_sees_those_of_requests(stream: io.StringIO) -> None:
    line = logs.RequestLine("some.module")
    with capture_logs() as seen:
        line.write(status=200)
    assert seen == [{"module": "some.module", "status": 200, "event": "request", "log_level": "info"}]
    assert not stream.getvalue()


def test_above_its_level_it_is_off() -> None:
    logs.configure("warning", io.StringIO())
    try:
        assert not logs.RequestLine("some.module").on
    finally:
        structlog.reset_defaults()
