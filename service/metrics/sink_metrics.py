"""The metrics of `gpt4rec loop sink`."""

from __future__ import annotations

from typing import ClassVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

STREAMS = ("exposures", "events")
OUTCOMES = ("written", "repeated", "erased", "refused", "gone")
FAILURES = ("redis", "log", "topic")
JOINS = ("named", "by_request", "inferred", "unmatched", "duplicate", "late")
DIMENSIONS = ("model", "segment", "strategy", "rung", "arm")
_SIZE_BUCKETS = (1, 10, 100, 1000, 5000, 10_000, 20_000, 50_000, 100_000)


class SinkMetrics:
    """What the sink counts and measures. Groups are the largest of each dimension, and `(other)`."""

    label_names: ClassVar[dict[str, tuple[str, ...]]] = {
        "gpt4rec_sink_entries": ("stream", "outcome"),
        "gpt4rec_sink_lag": ("stream",),
        "gpt4rec_sink_failures": ("what",),
        "gpt4rec_sink_events": ("outcome",),
        "gpt4rec_sink_unnamed_lists": ("dimension",),
        "gpt4rec_outcomes_lists": ("dimension", "group"),
        "gpt4rec_outcomes_click_through": ("dimension", "group"),
        "gpt4rec_outcomes_conversions_per_thousand": ("dimension", "group"),
        "gpt4rec_outcomes_value_per_thousand": ("dimension", "group"),
    }
    """The labels of each family that has any, by its name."""

    def __init__(self, registry: CollectorRegistry) -> None:
        names = self.label_names
        self.entries = Counter(
            "gpt4rec_sink_entries",
            "Entries by outcome: written, repeated (a file had it), erased, refused (no row can be made of it), gone "
            "(trimmed before it was read again).",
            names["gpt4rec_sink_entries"],
            registry=registry,
        )
        self.lag = Gauge(
            "gpt4rec_sink_lag",
            "Entries of a stream that are in no file yet.",
            names["gpt4rec_sink_lag"],
            registry=registry,
        )
        self.failures = Counter(
            "gpt4rec_sink_failures",
            "Attempts that failed and are repeated: redis, log (its folder), topic.",
            names["gpt4rec_sink_failures"],
            registry=registry,
        )
        self.holding = Gauge(
            "gpt4rec_sink_holding", "1 while nothing can be read or written, and attempts are repeated.",
            registry=registry,
        )  # fmt: skip
        self.waiting = Gauge(
            "gpt4rec_sink_standby", "1 while another sink reads these streams, and this one waits for it.",
            registry=registry,
        )  # fmt: skip
        self.batch = Histogram(
            "gpt4rec_sink_batch_entries", "Entries written together.", buckets=_SIZE_BUCKETS, registry=registry
        )
        self.files = Counter("gpt4rec_sink_files", "Files written.", registry=registry)
        self.written_at = Gauge(
            "gpt4rec_sink_written_timestamp_seconds", "When a batch was last safe in the log.", registry=registry
        )
        self.removed = Counter("gpt4rec_sink_removed_files", "Files deleted after the retention.", registry=registry)
        self.rewritten = Counter(
            "gpt4rec_sink_rewritten_files", "Files rewritten without erased subjects.", registry=registry
        )
        self.erasures = Gauge(
            "gpt4rec_sink_erasures_waiting", "Erasures that have not reached the older files yet.", registry=registry
        )
        self.oldest_erasure = Gauge(
            "gpt4rec_sink_oldest_erasure_seconds", "Age of the oldest of them; 0 without any.", registry=registry
        )
        self.events = Counter(
            "gpt4rec_sink_events",
            "Events of the live outcomes: named, by_request or inferred (how they came to their list), unmatched, "
            "duplicate, late (their list is no longer open, or has too many; reports have them).",
            names["gpt4rec_sink_events"],
            registry=registry,
        )
        self.open_lists = Gauge("gpt4rec_sink_open_lists", "Lists that events may be joined to.", registry=registry)
        self.closed_early = Counter(
            "gpt4rec_sink_closed_early",
            "Lists that were closed before their time because too many were open, of all subjects or of one.",
            registry=registry,
        )
        self.unnamed = Counter(
            "gpt4rec_sink_unnamed_lists",
            "Lists that live outcomes count as `(other)`, because their dimension has too many groups in a day. An arm "
            "among them has no figures.",
            names["gpt4rec_sink_unnamed_lists"],
            registry=registry,
        )
        self.lists = Gauge(
            "gpt4rec_outcomes_lists",
            "Lists of today and yesterday (UTC), by model, segment, strategy, rung, arm and position.",
            names["gpt4rec_outcomes_lists"],
            registry=registry,
        )
        self.click_through = Gauge(
            "gpt4rec_outcomes_click_through",
            "Share of these lists, or of positions, with a click.",
            names["gpt4rec_outcomes_click_through"],
            registry=registry,
        )
        self.conversions = Gauge(
            "gpt4rec_outcomes_conversions_per_thousand",
            "Items bought per thousand of these lists.",
            names["gpt4rec_outcomes_conversions_per_thousand"],
            registry=registry,
        )
        self.value = Gauge(
            "gpt4rec_outcomes_value_per_thousand",
            "Value of purchases per thousand of these lists.",
            names["gpt4rec_outcomes_value_per_thousand"],
            registry=registry,
        )
        for stream in STREAMS:  # a series that appears with its first increase is invisible to `rate`
            self.lag.labels(stream)
            for outcome in OUTCOMES:
                self.entries.labels(stream, outcome)
        for what in FAILURES:
            self.failures.labels(what)
        for outcome in JOINS:
            self.events.labels(outcome)
        for dimension in DIMENSIONS:
            self.unnamed.labels(dimension)
