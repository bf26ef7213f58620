"""Makes metric families on one registry."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from service.metrics.plain_metrics import PlainCounter, PlainHistogram

# The default budget is 80 ms: buckets lie close on both sides of it and reach down to a popularity list.
LATENCY_BUCKETS = (
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.09,
    0.1, 0.125, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5, 5.0,
)  # fmt: skip


class MetricFamilies:
    """Makes the families of one registry.

    Attributes:
        registry: Where the families are.
        label_names: The labels of each family, by its name.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.label_names: dict[str, tuple[str, ...]] = {}

    def counter(self, name: str, meaning: str, *labels: str, from_zero: Iterable[str] = ()) -> Counter:
        """Makes a counter.

        Args:
            name: Of the family.
            meaning: Its help text.
            labels: Names of its labels.
            from_zero: Values of its label that are shown from the start: the first increase of a series that has just
                appeared is invisible to `rate`.
        """
        self.label_names[name] = labels
        counter = PlainCounter(name, meaning, labels, registry=self.registry)
        for value in from_zero:
            counter.labels(value)
        return counter

    def gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        """Makes a gauge; arguments as of `counter`."""
        self.label_names[name] = labels
        return Gauge(name, meaning, labels, registry=self.registry)

    def histogram(self, name: str, meaning: str, *labels: str, buckets: Sequence[float]) -> Histogram:
        """Makes a histogram with these buckets; other arguments as of `counter`."""
        self.label_names[name] = labels
        return PlainHistogram(name, meaning, labels, buckets=buckets, registry=self.registry)


class MetricGroup:
    """Base of the groups of `Metrics`, by topic. Their attributes are metrics, as those of `Metrics` are."""
