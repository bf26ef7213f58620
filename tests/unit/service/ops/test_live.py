"""The console's figures: of seconds, of workers together, and against the metrics they are read from."""

from __future__ import annotations

from collections import Counter

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.metrics.families import LATENCY_BUCKETS
from service.metrics.service_metrics import Metrics
from service.ops.recent_traffic import KEPT_S, RecentTraffic, Second, quantile_ms, row, summed, together, traffic
from tests.support.clock import FakeClock


def answered(metrics: Metrics, seconds: float, source: str = "gpt4rec", reason: str = "", status: str = "200") -> None:
    metrics.answered("/recommend", int(status), source, seconds)
    metrics.recommendations.labels(source, "full" if source == "gpt4rec" else source, reason, "active", "beam").inc()


def test_a_second_holds_what_was_counted_in_it_and_nothing_of_before() -> None:
    metrics, clock = Metrics(), FakeClock(1000.0)
    answered(metrics, 0.004)
    live = RecentTraffic(metrics, clock)
    answered(metrics, 0.004)
    answered(metrics, 0.2, "popular", "deadline")
    metrics.deadline_missed.labels("popular").inc()
    metrics.events.labels("accepted").inc(3)
    metrics.events.labels("duplicate").inc()
    metrics.answered("/healthz", 200, "", 9.0)
    clock.advance(1.0)
    live.note()
    clock.advance(1.0)
    live.note()
    first, second = live.seconds()
    assert first.answers == {("gpt4rec", "full", ""): 1, ("popular", "popular", "deadline"): 1}
    assert (first.late, first.events) == (1, 3)
    assert {source: sum(buckets.values()) for source, buckets in first.latency.items()} == {"gpt4rec": 1, "popular": 1}
    assert second == Second(1001)
    assert [s.t for s in live.seconds(since=1000)] == [1001]


def test_what_is_kept_is_bounded_and_a_clock_that_is_set_back_loses_nothing() -> None:
    metrics, clock = Metrics(), FakeClock(1000.0)
    live = RecentTraffic(metrics, clock)
    for _ in range(KEPT_S + 5):
        clock.advance(1.0)
        live.note()
    assert len(live.seconds()) == KEPT_S
    clock.advance(-100.0)
    answered(metrics, 0.004)
    live.note()
    assert len(live.seconds()) == KEPT_S
    assert live.seconds()[-1].answers.total() == 1


def test_a_quantile_lies_in_the_bucket_of_its_answer() -> None:
    assert quantile_ms({}, 0.5) is None
    place = LATENCY_BUCKETS.index(0.02)
    assert quantile_ms({place: 4}, 0.5) == pytest.approx(17.5)
    assert quantile_ms({place: 99, place + 5: 1}, 0.99) == pytest.approx(20.0)
    # Above the last bound nothing is known but that it is above.
    assert quantile_ms({len(LATENCY_BUCKETS): 1}, 0.99) == LATENCY_BUCKETS[-1] * 1000.0


@settings(deadline=None)
@given(st.lists(st.floats(0.0001, 4.9), min_size=1, max_size=200), st.sampled_from([0.5, 0.95, 0.99]))
def test_a_quantile_is_within_a_bucket_of_the_exact_one(took: list[float], share: float) -> None:
    metrics, clock = Metrics(), FakeClock(1000.0)
    live = RecentTraffic(metrics, clock)
    for seconds in took:
        answered(metrics, seconds)
    clock.advance(1.0)
    live.note()
    buckets = live.seconds()[0].latency["gpt4rec"]
    ordered = sorted(took)
    exact = next(s for n, s in enumerate(ordered, start=1) if n >= share * len(ordered))
    bounds = [0.0, *LATENCY_BUCKETS]
    at = next(n for n, bound in enumerate(LATENCY_BUCKETS) if exact <= bound)
    told = quantile_ms(buckets, share)
    assert told is not None
    assert bounds[at] * 1000.0 - 1e-3 <= told <= bounds[at + 1] * 1000.0 + 1e-3


seconds = st.builds(
    Second,
    st.integers(1, 4),
    st.dictionaries(
        st.tuples(
            st.sampled_from(["gpt4rec", "popular"]),
            st.sampled_from(["full", "popular"]),
            st.sampled_from(["", "forced"]),
        ),
        st.integers(1, 9),
    ).map(Counter),
    st.dictionaries(
        st.sampled_from(["gpt4rec", "popular"]),
        st.dictionaries(st.integers(0, len(LATENCY_BUCKETS)), st.integers(1, 9), min_size=1),
    ),
    st.integers(0, 9),
    st.integers(0, 9),
    st.integers(0, 9),
    st.dictionaries(st.sampled_from(["memory:hit", "memory:miss"]), st.integers(1, 9)).map(Counter),
)


@settings(deadline=None)
@given(st.lists(st.lists(seconds, max_size=4), max_size=3))
def test_workers_add_up_also_over_the_wire(workers: list[list[Second]]) -> None:
    told = [[Second.parse(orjson.loads(orjson.dumps(s.to_json()))) for s in worker] for worker in workers]
    assert told == workers
    merged = together(told)
    assert [second.t for second in merged] == sorted({s.t for worker in workers for s in worker})
    expected, found = summed(s for worker in workers for s in worker), summed(merged)
    assert found == expected


def test_rows_and_figures_tell_sources_rungs_and_reasons() -> None:
    place = LATENCY_BUCKETS.index(0.01)
    answers = Counter(
        {
            ("gpt4rec", "full", "not_enough_items"): 6,
            ("gpt4rec", "narrow", "overload"): 1,
            ("item_cf", "item_cf", "deadline"): 2,
            ("popular", "full", ""): 1,
        }
    )
    second = Second(7, answers, {"gpt4rec": {place: 7}}, late=1, cache=Counter({"memory:hit": 3, "memory:miss": 1}))
    drawn = row(second)
    assert drawn["answers"] == 10
    assert drawn["source"] == {"gpt4rec": 7, "item_cf": 2, "popular": 1}
    assert drawn["rung"] == {"full": 7, "narrow": 1, "item_cf": 2}
    assert drawn["reason"] == {"not_enough_items": 6, "overload": 1, "deadline": 2}
    figures = traffic([second], window_s=5)
    assert (figures["answers_per_s"], figures["late"], figures["cache"]["hit_share"]) == (2.0, 1, 0.75)
    assert set(figures["latency"]) == {"all", "gpt4rec"}


def test_nothing_happened_is_told_as_nothing() -> None:
    figures = traffic([])
    assert figures["answers"] == 0
    assert figures["latency"]["all"] == {"answers": 0, "p50_ms": None, "p95_ms": None, "p99_ms": None}
    assert figures["cache"]["hit_share"] is None
