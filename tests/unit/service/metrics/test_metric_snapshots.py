"""The snapshot of the metrics counts what the exposition counts."""

from __future__ import annotations

from itertools import accumulate

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from service.metrics.families import LATENCY_BUCKETS
from service.metrics.service_metrics import Metrics, value_of

_BUCKET = "gpt4rec_request_duration_seconds_bucket"


@settings(deadline=None)
@given(st.lists(st.floats(0.0, 10.0) | st.sampled_from(LATENCY_BUCKETS), min_size=1, max_size=50))
def test_a_snapshot_has_the_latency_buckets_of_the_exposition(took: list[float]) -> None:
    metrics = Metrics()
    for seconds in took:
        metrics.answered("/recommend", 200, "gpt4rec", seconds)
        metrics.answered("/recommend", 422, "", seconds)
        metrics.answered("/events", 200, "", seconds)
    upto = [
        sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
        if sample.name == _BUCKET and (sample.labels["route"], sample.labels["status"]) == ("/recommend", "200")
    ]
    assert list(accumulate(metrics.snapshot().latency["gpt4rec"])) == upto
    assert set(metrics.snapshot().latency) == {"gpt4rec"}


def test_a_snapshot_counts_failures_late_answers_and_accepted_events() -> None:
    metrics = Metrics()
    metrics.answered("/recommend", 503, "", 0.1)
    metrics.deadline_missed.labels("popular").inc()
    metrics.events.labels("accepted").inc(2)
    metrics.events.labels("duplicate").inc()
    metrics.recommendations.labels("popular", "popular", "forced", "active", "beam").inc()
    metrics.recommendations.labels("popular", "popular", "forced", "new", "greedy").inc()
    metrics.state_cache.labels("memory", "hit").inc()
    snapshot = metrics.snapshot()
    assert (snapshot.failed, snapshot.late, snapshot.events) == (1, 1, 2)
    assert snapshot.answers == {("popular", "popular", "forced"): 2}
    assert snapshot.cache == {"memory:hit": 1}
    assert value_of(metrics.events, "duplicate") == 1.0


def test_every_family_names_its_labels() -> None:
    metrics = Metrics()
    assert set(metrics.label_names) == {family.name for family in metrics.registry.collect()}
    assert metrics.label_names["gpt4rec_request_duration_seconds"] == ("route", "status", "source")
