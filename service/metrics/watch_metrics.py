"""The metrics of what lists and traffic are like, and how far they drift from what the model was made on."""

from __future__ import annotations

from service.metrics.families import MetricFamilies, MetricGroup

WATCH_BASELINES = ("ok", "missing", "unreadable")


class WatchMetrics(MetricGroup):
    """Figures of the last hour and day, their drift, and counts of what was shown."""

    def __init__(self, families: MetricFamilies) -> None:
        self.figures = families.gauge(
            "gpt4rec_watch",
            "Figures of the lists and the traffic of the last whole hour and day (UTC) of this process: coverage, "
            "entropy, novelty, tail_share, repeats, overlap_yesterday, score_auc, score_calibration, unknown_items, "
            "new_users.",
            "statistic",
            "window",
        )
        self.watched = families.gauge(
            "gpt4rec_watched", "Lists and events that the figures of the last hour and day are of.", "kind", "window"
        )
        self.drift = families.gauge(
            "gpt4rec_drift",
            "Jensen-Shannon divergence, in bits, of the last hour and day from the baseline of the model's artefact.",
            "statistic",
            "window",
        )
        self.drift_threshold = families.gauge(
            "gpt4rec_drift_threshold",
            "Divergence that a window with so many subjects hardly ever reaches by chance.",
            "statistic",
            "window",
        )
        self.drifted = families.gauge(
            "gpt4rec_drifted", "1 if the divergence of the last hour, or day, is above its threshold.", "statistic",
            "window",
        )  # fmt: skip
        self.baseline = families.gauge(
            "gpt4rec_watch_baseline",
            "1 for what the artefact says about the traffic it was made on: ok, missing (there is no drift to show), "
            "unreadable.",
            "state",
        )
        self.ordered_lists = families.counter(
            "gpt4rec_ordered_lists",
            "Lists whose first items an order model put into order, by the segment of the user: changed, or the same.",
            "segment",
            "outcome",
        )
        self.shown_items = families.counter(
            "gpt4rec_shown_items",
            "Items in watched lists, by the segment of the user and the popularity of the item.",
            "segment",
            "popularity",
        )
        self.shown_categories = families.counter(
            "gpt4rec_shown_categories",
            "Items in watched lists, by the segment of the user and the category of the item; the largest by name.",
            "segment",
            "category",
        )
        self.skipped = families.counter(
            "gpt4rec_watch_skipped",
            "Lists and events that were not watched: more than 2,048 in a second, or of another model.",
            "kind",
            from_zero=("lists", "events"),
        )
