"""Several workers' metrics as one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from service.common.errors import WorkerAway
from service.metrics.service_metrics import MODES, Metrics
from service.metrics.text_formats import OPEN_METRICS, TextFormat
from service.ops.worker_peers import Peers, bearer, merge, worker_urls


def exposition(counted: int, observed: list[float], inflight: int, lag: float, mode: str) -> str:
    metrics = Metrics()
    metrics.events.labels("accepted").inc(counted)
    for seconds in observed:
        metrics.request_duration.labels("/recommend", "200", "gpt4rec").observe(seconds)
    metrics.inflight.set(inflight)
    metrics.loop_lag.set(lag)
    metrics.one_hot(metrics.fallback_mode, MODES, mode)
    return metrics.render().decode()


def value(text: str, name: str, **labels: str) -> float:
    found = [
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    assert len(found) == 1, (name, found)
    return found[0]


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 9), st.lists(st.floats(0.0001, 10.0), max_size=6), st.integers(0, 5), st.floats(0, 1),
            st.just("auto"),
        ),
        min_size=1,
        max_size=4,
    )
)  # fmt: skip
def test_counters_and_histograms_add_up_and_a_state_stays_a_state(
    workers: list[tuple[int, list[float], int, float, str]],
) -> None:
    text = merge(exposition(*worker) for worker in workers).decode()
    observed = [seconds for worker in workers for seconds in worker[1]]
    assert value(text, "gpt4rec_events_total", outcome="accepted") == sum(worker[0] for worker in workers)
    assert value(text, "gpt4rec_inflight") == sum(worker[2] for worker in workers)
    assert value(text, "gpt4rec_event_loop_lag_seconds") == max(worker[3] for worker in workers)
    assert value(text, "gpt4rec_fallback_mode", mode="auto") == 1.0
    if observed:
        assert value(text, "gpt4rec_request_duration_seconds_count") == len(observed)
        assert value(text, "gpt4rec_request_duration_seconds_sum") == pytest.approx(sum(observed))
        within = sum(seconds <= 0.08 for seconds in observed)
        assert value(text, "gpt4rec_request_duration_seconds_bucket", le="0.08") == within


def test_exemplars_are_kept_and_of_one_bucket_the_latest() -> None:
    def worker(*observed: tuple[float, str]) -> str:
        metrics = Metrics()
        for seconds, trace_id in observed:
            metrics.answered("/recommend", 200, "gpt4rec", seconds, {"trace_id": trace_id})
        return metrics.render(OPEN_METRICS).decode()

    first, second = worker((0.0015, "1" * 32), (0.4, "2" * 32)), worker((0.0016, "3" * 32))
    assert " # {" not in merge([]).decode()
    merged = merge([first, second], OPEN_METRICS).decode()
    found = {
        sample.labels["le"]: sample.exemplar.labels["trace_id"]
        for family in OPEN_METRICS.read(merged)
        for sample in family.samples
        if sample.exemplar is not None
    }
    assert found == {"0.002": "3" * 32, "0.5": "2" * 32}
    assert merged.endswith("# EOF\n")


def test_one_exposition_is_itself() -> None:
    text = exposition(3, [0.01, 0.2], 1, 0.5, "fallback")
    assert sorted(merge([text]).decode().splitlines()) == sorted(text.splitlines())


def test_a_worker_that_does_not_answer_is_no_sum() -> None:
    with pytest.raises(WorkerAway):
        asyncio.run(Peers().fetch(["http://127.0.0.1:1/metrics"]))


def test_a_secret_is_passed_on_byte_by_byte() -> None:
    assert bearer(None) == {}
    assert bearer("\xe9") == {b"Authorization": b"Bearer \xe9"}


def test_whoever_asks_for_the_metrics_at_the_same_time_shares_one_round(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds: list[str | None] = []

    async def fetch(_: Peers, urls: Sequence[str], secret: str | None, form: TextFormat) -> list[str]:
        rounds.append(secret)
        await asyncio.sleep(0)
        return [exposition(1, [], 0, 0.0, "auto") for _ in urls]

    async def ask() -> list[bytes]:
        peers = Peers()
        return await asyncio.gather(*(peers.metrics(["one", "two"]) for _ in range(8)))

    monkeypatch.setattr(Peers, "fetch", fetch)
    answers = asyncio.run(ask())
    assert rounds == [None]
    assert all(value(answer.decode(), "gpt4rec_events_total", outcome="accepted") == 2 for answer in answers)


def test_a_workers_own_port_lies_above_the_shared_one() -> None:
    assert worker_urls("::1", 8000, 2) == ["http://[::1]:8001/metrics", "http://[::1]:8002/metrics"]
