"""The metrics of `gpt4rec ingest kafka`, beside those of the service on the same registry."""

from __future__ import annotations

from typing import ClassVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

OUTCOMES = ("stored", "split", "dead")
EVENTS = ("accepted", "duplicate", "dead")
# From an event that is stored at once to one that waited for the store to come back.
_DELAY_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 300.0, 3600.0)
_SIZE_BUCKETS = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 5000)


class IntakeMetrics:
    """What the intake counts and measures.

    The only label with many values is the partition, of which only those that this process reads are shown.
    """

    label_names: ClassVar[dict[str, tuple[str, ...]]] = {
        "gpt4rec_intake_messages": ("outcome",),
        "gpt4rec_intake_events": ("outcome",),
        "gpt4rec_intake_lag": ("partition",),
        "gpt4rec_intake_retries": ("what",),
        "gpt4rec_intake_commits": ("outcome",),
        "gpt4rec_intake_partitions": ("change",),
    }
    """The labels of each family that has any, by its name."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.messages = Counter(
            "gpt4rec_intake_messages",
            "Messages by outcome: stored (every event), split (some events are dead letters), dead (all of it).",
            self.label_names["gpt4rec_intake_messages"],
            registry=registry,
        )
        self.events = Counter(
            "gpt4rec_intake_events",
            "Events of messages by outcome: accepted, duplicate, dead (it went to the dead-letter topic).",
            self.label_names["gpt4rec_intake_events"],
            registry=registry,
        )
        self.lag = Gauge(
            "gpt4rec_intake_lag",
            "Messages of a partition that are not stored yet, for the partitions that this process reads.",
            self.label_names["gpt4rec_intake_lag"],
            registry=registry,
        )
        self.delay = Histogram(
            "gpt4rec_intake_delay_seconds",
            "Time from the timestamp of a message to the acknowledgement of the store.",
            buckets=_DELAY_BUCKETS,
            registry=registry,
        )
        self.batch = Histogram(
            "gpt4rec_intake_batch_messages", "Messages stored together.", buckets=_SIZE_BUCKETS, registry=registry
        )
        self.paused = Gauge(
            "gpt4rec_intake_paused",
            "1 while nothing is read because the store or the dead-letter topic is away.",
            registry=registry,
        )
        self.retries = Counter(
            "gpt4rec_intake_retries",
            "Attempts that failed and are repeated: store, dead_letters.",
            self.label_names["gpt4rec_intake_retries"],
            registry=registry,
        )
        self.commits = Counter(
            "gpt4rec_intake_commits",
            "Commits of offsets: ok, failed.",
            self.label_names["gpt4rec_intake_commits"],
            registry=registry,
        )
        self.partitions = Counter(
            "gpt4rec_intake_partitions",
            "Partitions that this process was given or lost: assigned, revoked (in order), lost (it was too slow).",
            self.label_names["gpt4rec_intake_partitions"],
            registry=registry,
        )
        self.abandoned = Counter(
            "gpt4rec_intake_abandoned",
            "Messages in hand whose partition went to another process before they were stored; that one stores them.",
            registry=registry,
        )
        for counter, values in (
            (self.messages, OUTCOMES),
            (self.events, EVENTS),
            (self.retries, ("store", "dead_letters")),
            (self.commits, ("ok", "failed")),
            (self.partitions, ("assigned", "revoked", "lost")),
        ):
            for value in values:  # a series that appears with its first increase is invisible to `rate`
                counter.labels(value)

    def show_lag(self, lags: dict[int, int]) -> None:
        """Shows the lag of each partition that is read, and of no other."""
        self.lag.clear()
        for partition, lag in lags.items():
            self.lag.labels(str(partition)).set(lag)
