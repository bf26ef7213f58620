"""Plain counters and histograms show what prometheus-client's own would."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from service.metrics.plain_metrics import PlainCounter, PlainHistogram

BOUNDS = (0.1, 0.5, 1.0)
VALUES = st.floats(0, 2) | st.sampled_from(BOUNDS)


def shown(registry: CollectorRegistry) -> list[str]:
    """The text without the times at which the series began."""
    return [line for line in generate_latest(registry).decode().splitlines() if "_created{" not in line]


@given(st.lists(st.tuples(st.sampled_from("ab"), VALUES)))
def test_they_show_what_those_of_prometheus_client_show(values: list[tuple[str, float]]) -> None:
    plain, own = CollectorRegistry(), CollectorRegistry()
    counters = (PlainCounter("n", "Number.", ["of"], registry=plain), Counter("n", "Number.", ["of"], registry=own))
    times = (
        PlainHistogram("t", "Time.", ["of"], buckets=BOUNDS, registry=plain),
        Histogram("t", "Time.", ["of"], buckets=BOUNDS, registry=own),
    )
    for label, value in values:
        for counter, histogram in zip(counters, times, strict=True):
            counter.labels(label).inc(value)
            histogram.labels(of=label).observe(value)
    assert shown(plain) == shown(own)
    assert [line.split()[0] for line in generate_latest(plain).decode().splitlines()] == [
        line.split()[0] for line in generate_latest(own).decode().splitlines()
    ]


def test_a_counter_without_labels_counts_and_never_falls() -> None:
    registry = CollectorRegistry()
    counter = PlainCounter("n", "Number.", registry=registry)
    counter.inc()
    counter.inc(2)
    assert registry.get_sample_value("n_total") == 3
    with pytest.raises(ValueError, match="grow"):
        counter.inc(-1)


def test_a_child_that_was_removed_begins_anew() -> None:
    registry = CollectorRegistry()
    counter = PlainCounter("n", "Number.", ["of"], registry=registry)
    counter.labels("a").inc(3)
    counter.remove("a")
    assert registry.get_sample_value("n_total", {"of": "a"}) is None
    counter.labels("a").inc()
    assert registry.get_sample_value("n_total", {"of": "a"}) == 1
