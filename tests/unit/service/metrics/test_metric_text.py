"""Which format a scraper is given."""

from __future__ import annotations

import pytest

from service.metrics.text_formats import OPEN_METRICS, PLAIN, TextFormat, asked


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, PLAIN),
        (b"", PLAIN),
        (b"*/*", PLAIN),
        (b"text/plain;version=0.0.4", PLAIN),
        (b"text/html, application/openmetrics-text; q=0, */*", PLAIN),
        (b"application/openmetrics-textile", PLAIN),
        (b"application/openmetrics-text; version=1.0.0", OPEN_METRICS),
        (b"text/plain;q=0.5, Application/OpenMetrics-Text;q=0.75", OPEN_METRICS),
        (b"application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1", OPEN_METRICS),
        (b"\xff,,;;=", PLAIN),
    ],
)
def test_openmetrics_is_for_those_who_name_it(accept: bytes | None, expected: TextFormat) -> None:
    assert asked(accept) is expected
