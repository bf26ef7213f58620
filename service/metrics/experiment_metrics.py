"""The metrics of experiments and of shadows."""

from __future__ import annotations

from service.metrics.families import LATENCY_BUCKETS, MetricFamilies, MetricGroup

SHARE_BUCKETS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


class ExperimentMetrics(MetricGroup):
    """Lists of experiments by arm, and the lists that the candidates of shadows would have shown."""

    def __init__(self, families: MetricFamilies) -> None:
        self.lists = families.counter(
            "gpt4rec_experiment_lists",
            "Lists by running experiment, by the arm of their subject, and by outcome: ok, late, failed (an attempt at "
            "the model), below (the model); a list may be several of the last three.",
            "experiment",
            "arm",
            "outcome",
        )
        self.withheld = families.gauge(
            "gpt4rec_experiment_model_withheld",
            "Part of the traffic of an arm that its breaker keeps from the model, 0 to 1, by running experiment.",
            "experiment",
            "arm",
        )
        self.shadow_requests = families.counter(
            "gpt4rec_shadow_requests",
            "Requests of running shadows by outcome: compared, dropped (too many waited), busy (no spare time), "
            "skipped (the answer did not come from the rung full, or the candidate cannot answer it), failed.",
            "experiment",
            "outcome",
        )
        self.shadow_overlap = families.histogram(
            "gpt4rec_shadow_overlap",
            "Share of the items of a list that the candidate of a running shadow would have shown too.",
            "experiment",
            buckets=SHARE_BUCKETS,
        )
        self.shadow_duration = families.histogram(
            "gpt4rec_shadow_duration_seconds",
            "Time from the plan of a request to its list, of what was shown and of the candidate of a running shadow.",
            "experiment",
            "list",
            buckets=LATENCY_BUCKETS,
        )
