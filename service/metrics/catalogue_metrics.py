"""The metrics of filters of the catalogue, and of items that are stored over HTTP."""

from __future__ import annotations

from service.metrics.families import MetricFamilies, MetricGroup

ITEM_DELAY_BUCKETS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0)
ITEM_CHANGES = ("created", "updated", "unchanged", "deleted", "missing", "conflict", "full", "refused")


class CatalogueMetrics(MetricGroup):
    """Filters, and changes of items."""

    def __init__(self, families: MetricFamilies) -> None:
        self.filters_held = families.gauge("gpt4rec_filters_held", "Filters whose masks the engine holds.")
        self.filter_bytes = families.gauge("gpt4rec_filter_bytes", "Bytes of the masks of filters, in host memory.")
        self.filter_builds = families.counter(
            "gpt4rec_filter_builds",
            "New filters by outcome: built, failed, evicted (dropped to make room for others), late (a request did not "
            "wait to the end), refused_caller and refused_total (the ration of the caller, or of all, is spent).",
            "outcome",
            from_zero=("built", "failed", "evicted", "late", "refused_caller", "refused_total"),
        )
        self.items_stored = families.gauge("gpt4rec_items_stored", "Items stored over HTTP that this process knows of.")
        self.item_changes = families.counter(
            "gpt4rec_item_changes",
            "Changes of items over HTTP by outcome: created, updated, unchanged, deleted, missing, conflict, full, "
            "refused (a line of an import that is not valid).",
            "outcome",
            from_zero=ITEM_CHANGES,
        )
        self.item_delay = families.histogram(
            "gpt4rec_item_delay_seconds",
            "Time from a change of an item in Redis until the lists of this process follow it.",
            buckets=ITEM_DELAY_BUCKETS,
        )
