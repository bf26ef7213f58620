"""The metrics of what is recorded: lists and events, in streams of Redis."""

from __future__ import annotations

from service.metrics.families import MetricFamilies, MetricGroup


class RecordingMetrics(MetricGroup):
    """What became of the records of lists and events."""

    def __init__(self, families: MetricFamilies) -> None:
        self.lists = families.counter(
            "gpt4rec_exposures",
            "Lists by what became of their record: recorded (acknowledged by Redis), dropped (the queue was full, or "
            "the user was erased), failed (it could not be made or written), not_sampled (outside the recorded share).",
            "outcome",
            from_zero=("recorded", "dropped", "failed", "not_sampled"),
        )
        self.events = families.counter(
            "gpt4rec_recorded_events",
            "Acknowledged events by what became of their record in the stream of events: recorded, dropped, failed.",
            "outcome",
            from_zero=("recorded", "dropped", "failed"),
        )
        self.waiting = families.gauge(
            "gpt4rec_exposures_waiting", "Lists and events that are not recorded yet, by stream.", "stream"
        )
        self.trimmed_unread = families.counter(
            "gpt4rec_exposures_trimmed_unread",
            "Entries that were trimmed from a stream before the consumer group of the sink was given them.",
            "stream",
            from_zero=("exposures", "events"),
        )
