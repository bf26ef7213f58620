"""The Prometheus metrics of the service. No label ever contains a user or an item."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

# The default budget is 80 ms: buckets lie close on both sides of it and reach down to a popularity list.
LATENCY_BUCKETS = (
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.09,
    0.1, 0.125, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5, 5.0,
)  # fmt: skip
STAGE_BUCKETS = (
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.2, 0.5, 1.0,
)  # fmt: skip
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)

STAGES = ("state", "queue", "encode", "decode", "fallback", "serialize")
ATTEMPTS = ("ok", "late", "failed")
BREAKER_STATES = ("closed", "open", "half_open")
MODES = ("auto", "fallback", "model")


class Metrics:
    """All metrics of one process, on one registry."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = r = registry or CollectorRegistry()
        self.request_duration = Histogram(
            "gpt4rec_request_duration_seconds",
            "Time from the arrival of a request to its last byte, whatever its outcome.",
            ["route", "status", "source"],
            buckets=LATENCY_BUCKETS,
            registry=r,
        )
        self.deadline_missed = Counter(
            "gpt4rec_deadline_missed",
            "Answers sent after their deadline, by rung.",
            ["rung"],
            registry=r,
        )
        self.loop_lag = Gauge(
            "gpt4rec_event_loop_lag_seconds", "How late the event loop ran its last timer.", registry=r
        )
        self.recommendations = Counter(
            "gpt4rec_recommendations",
            "Answers of /recommend; the reason is empty for an answer that is not degraded.",
            ["source", "reason", "segment", "strategy"],
            registry=r,
        )
        self.stage_duration = Histogram(
            "gpt4rec_stage_duration_seconds",
            "Time spent in one stage, failures included: " + ", ".join(STAGES) + ".",
            ["stage"],
            buckets=STAGE_BUCKETS,
            registry=r,
        )
        self.batch_size = Histogram(
            "gpt4rec_batch_size", "Rows of one graph run.", ["graph"], buckets=BATCH_BUCKETS, registry=r
        )
        self.queue_depth = Gauge("gpt4rec_queue_depth", "Jobs waiting for the engine.", registry=r)
        self.inflight = Gauge("gpt4rec_inflight", "Requests in progress.", registry=r)
        self.breaker_state = Gauge(
            "gpt4rec_breaker_state", "1 for the present state of the breaker.", ["state"], registry=r
        )
        self.fallback_mode = Gauge("gpt4rec_fallback_mode", "1 for the mode in force.", ["mode"], registry=r)
        self.events = Counter(
            "gpt4rec_events",
            "Events by outcome: accepted, duplicate, failed; rejected counts whole batches.",
            ["outcome"],
            registry=r,
        )
        self.rate_checks = Counter(
            "gpt4rec_rate_checks",
            "Rate checks of API keys, counted in Redis (shared) or, while it is unavailable, by this process (own): "
            "allowed, refused.",
            ["where", "outcome"],
            registry=r,
        )
        self.model_attempts = Counter(
            "gpt4rec_model_attempts",
            "Finished model attempts: ok, late (no answer before the deadline), failed.",
            ["outcome"],
            registry=r,
        )
        self.state_cache = Counter(
            "gpt4rec_state_cache",
            "Lookups of histories in the process (level memory: hit, stale, miss) and uses of encoder states (level "
            "state: hit, extended, rebuilt, stored, lost, dropped).",
            ["level", "outcome"],
            registry=r,
        )
        self.redis_errors = Counter(
            "gpt4rec_redis_errors", "Redis commands that failed or timed out.", ["operation"], registry=r
        )
        self.model_info = Gauge("gpt4rec_model_info", "1 for the model in service.", ["version"], registry=r)
        self.model_reload = Counter(
            "gpt4rec_model_reload",
            "Switches of the model, by outcome: activated, refused (the new model failed; the old one stays), "
            "missing (an operator chose it, but it is not on the disk of this replica).",
            ["outcome"],
            registry=r,
        )
        self.burn_rate = Gauge(
            "gpt4rec_error_budget_burn_rate",
            "How many times faster than allowed an error budget is used, over 1m, 5m, 1h: late model attempts "
            "(latency), failed ones (errors), answers from below the model (served).",
            ["objective", "window"],
            registry=r,
        )

        # Looking a child up by its labels takes longer than updating it.
        self._stages = {name: self.stage_duration.labels(name) for name in STAGES}
        self._attempts = {name: self.model_attempts.labels(name) for name in ATTEMPTS}

    def render(self) -> bytes:
        """Returns the metrics in the text exposition format."""
        return generate_latest(self.registry)

    def attempted(self, outcome: str) -> None:
        """Counts a model attempt that ended; outcomes other than `ATTEMPTS` are not counted.

        An attempt that was never made, or whose caller went away, has such an outcome.
        """
        if outcome in self._attempts:
            self._attempts[outcome].inc()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measures the time of a stage, also when it fails."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._stages[name].observe(time.perf_counter() - began)

    def one_hot(self, gauge: Gauge, names: Iterable[str], present: str) -> None:
        """Sets a gauge to 1 for the label `present`, and to 0 for the other names."""
        for name in names:
            gauge.labels(name).set(1.0 if name == present else 0.0)


async def watch_loop_lag(metrics: Metrics, interval_s: float, tell: Callable[[float], None]) -> None:
    """Measures how late the event loop runs its timers, until cancelled.

    Args:
        metrics: Keeps the last lag.
        interval_s: Seconds between two measurements.
        tell: Called with each lag, in seconds.
    """
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + interval_s
        await asyncio.sleep(interval_s)
        lag = max(0.0, loop.time() - due)
        metrics.loop_lag.set(lag)
        tell(lag)
