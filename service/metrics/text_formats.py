"""The two text formats of metrics: Prometheus' own, and OpenMetrics, which alone shows exemplars."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client import exposition as plain_text
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import exposition as open_text
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families
from prometheus_client.parser import text_string_to_metric_families as plain_families
from prometheus_client.registry import Collector

_OPEN = b"application/openmetrics-text"


@dataclass(frozen=True, slots=True)
class TextFormat:
    """A format.

    Attributes:
        content_type: What an answer says of it.
        accept: How to ask for it.
        write: Makes text of a registry.
        read: Makes families of text.
    """

    content_type: str
    accept: str
    write: Callable[[CollectorRegistry], bytes]
    read: Callable[[str], Iterable[Metric]]

    def text_of(self, families: Iterable[Metric]) -> bytes:
        """Returns families as text."""
        registry = CollectorRegistry()
        registry.register(_Fixed(families))
        return self.write(registry)


PLAIN = TextFormat("text/plain; version=0.0.4; charset=utf-8", "text/plain", plain_text.generate_latest, plain_families)
OPEN_METRICS = TextFormat(
    "application/openmetrics-text; version=1.0.0; charset=utf-8",
    "application/openmetrics-text; version=1.0.0",
    open_text.generate_latest,
    open_families,
)


def asked(accept: bytes | None) -> TextFormat:
    """Returns the format for a scraper, by its header `Accept`: OpenMetrics where it is named."""
    for one in (accept or b"").split(b","):
        kind, _, options = one.strip().partition(b";")
        if kind.strip().lower() == _OPEN and b"q=0," not in options.replace(b" ", b"") + b",":
            return OPEN_METRICS
    return PLAIN


class _Fixed(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterator[Metric]:
        yield from self._families
