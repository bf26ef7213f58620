"""The metrics of the roles `answer` and `encode`: what is handed over, what waits, what became of it."""

from __future__ import annotations

from typing import ClassVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

HANDED = ("handed", "dropped", "trimmed")
ENTRIES = ("encoded", "current", "repeated", "failed", "taken_over", "given_up", "unreadable")
_DELAY_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)


class EncodeMetrics:
    """What the roles count and measure, beside the metrics of the service."""

    label_names: ClassVar[dict[str, tuple[str, ...]]] = {
        "gpt4rec_encode_handed": ("outcome",),
        "gpt4rec_encode_entries": ("outcome",),
    }
    """The labels of each family that has any, by its name."""

    def __init__(self, registry: CollectorRegistry) -> None:
        names = self.label_names
        self.handed = Counter(
            "gpt4rec_encode_handed",
            "Subjects with new events by what became of them in the role answer: handed (they are in the stream), "
            "dropped (too many waited for Redis), trimmed (entries that the full stream lost; their next request "
            "encodes).",
            names["gpt4rec_encode_handed"],
            registry=registry,
        )
        self.waiting = Gauge(
            "gpt4rec_encode_waiting", "Subjects that are not in the stream yet, in the role answer.", registry=registry
        )
        self.entries = Counter(
            "gpt4rec_encode_entries",
            "Entries of the stream by outcome in the role encode: encoded (the state is stored), current (there was "
            "nothing to encode), repeated (another entry of the same subject in the same turn), failed (it is tried "
            "again), taken_over (from a process that did not finish it), given_up (after many attempts), unreadable "
            "(of another release).",
            names["gpt4rec_encode_entries"],
            registry=registry,
        )
        self.lag = Gauge(
            "gpt4rec_encode_lag_entries", "Entries of all shards of the stream that are not done.", registry=registry
        )
        self.lag_s = Gauge(
            "gpt4rec_encode_lag_seconds",
            "Age of the oldest entry that is not done, by the clock of Redis; 0 without any.",
            registry=registry,
        )
        self.delay = Histogram(
            "gpt4rec_encode_delay_seconds",
            "Time from the entry in the stream, by the clock of Redis, until its state is stored, by that of the "
            "process.",
            buckets=_DELAY_BUCKETS,
            registry=registry,
        )
        for outcome in HANDED:  # a series that appears with its first increase is invisible to `rate`
            self.handed.labels(outcome)
        for outcome in ENTRIES:
            self.entries.labels(outcome)
