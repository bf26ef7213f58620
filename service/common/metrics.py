"""The Prometheus metrics of the service. No label ever contains a user or an item."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter as Totals
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from service.common.disk_lane import PATIENCE_S, DiskLane
from service.common.metric_text import PLAIN, TextFormat
from service.common.plain_metrics import PlainCounter, PlainHistogram

# The default budget is 80 ms: buckets lie close on both sides of it and reach down to a popularity list.
LATENCY_BUCKETS = (
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.09,
    0.1, 0.125, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5, 5.0,
)  # fmt: skip
STAGE_BUCKETS = (
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.2, 0.5, 1.0,
)  # fmt: skip
ITEM_DELAY_BUCKETS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0)
SHARE_BUCKETS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)

RECOMMEND = "/recommend"
STAGES = ("state", "queue", "encode", "decode", "fallback", "serialize")
ITEM_CHANGES = ("created", "updated", "unchanged", "deleted", "missing", "conflict", "full", "refused")
ATTEMPTS = ("ok", "late", "failed")
BREAKER_STATES = ("closed", "open", "half_open")
MODES = ("auto", "fallback", "model")
WATCH_BASELINES = ("ok", "missing", "unreadable")


@dataclass(frozen=True, slots=True)
class MetricsSnapshot:
    """Totals since the start of the process.

    Attributes:
        answers: Answers to /recommend, by (source, rung, reason).
        segments: Answers to /recommend, by segment.
        latency: Answers to /recommend with status 200, by source and latency bucket (`LATENCY_BUCKETS`, and one above).
        late: Answers sent after their deadline.
        failed: Answers to /recommend with a 5xx status.
        events: Accepted events.
        cache: Uses of histories and states, by `level:outcome`.
    """

    answers: Totals[tuple[str, str, str]]
    segments: Totals[str]
    latency: Mapping[str, Sequence[int]]
    late: int
    failed: int
    events: int
    cache: Totals[str]


# Counters that are shown from the start with every value of their label: the first increase of a series that has just
# appeared is invisible to `rate`.
_FROM_ZERO: dict[str, tuple[str, ...]] = {
    "gpt4rec_bodies_refused": ("too_slow", "too_many_bodies"),
    "gpt4rec_exposures": ("recorded", "dropped", "failed", "not_sampled"),
    "gpt4rec_recorded_events": ("recorded", "dropped", "failed"),
    "gpt4rec_exposures_trimmed_unread": ("exposures", "events"),
    "gpt4rec_crowded": ("hurried", "refused"),
    "gpt4rec_events": ("accepted", "duplicate", "failed", "rejected"),
    "gpt4rec_filter_builds": ("built", "failed", "evicted", "late", "refused_caller", "refused_total"),
    "gpt4rec_histories_missing": ("log", "version", "both"),
    "gpt4rec_item_changes": ITEM_CHANGES,
    "gpt4rec_kept_lists": ("hit", "miss", "never"),
    "gpt4rec_model_attempts": ATTEMPTS,
    "gpt4rec_model_reopenings": ("opened", "failed"),
    "gpt4rec_spans": ("exported", "failed"),
    "gpt4rec_watch_skipped": ("lists", "events"),
}


class Metrics:
    """All metrics of one process, on one registry."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self.label_names: dict[str, tuple[str, ...]] = {}
        """The labels of each family, by its name."""
        self.request_duration = self._histogram(
            "gpt4rec_request_duration_seconds",
            "Time from the arrival of a request to its last byte, whatever its outcome.",
            "route",
            "status",
            "source",
            buckets=LATENCY_BUCKETS,
        )
        self.deadline_missed = self._counter(
            "gpt4rec_deadline_missed", "Answers sent after their deadline, by rung.", "rung"
        )
        self.loop_lag = self._gauge("gpt4rec_event_loop_lag_seconds", "How late the event loop ran its last timer.")
        self.recommendations = self._counter(
            "gpt4rec_recommendations",
            "Answers of /recommend by what made them. The reason is empty for a whole list of the rung full, the "
            "strategy for a list that no model decoded.",
            "source",
            "rung",
            "reason",
            "segment",
            "strategy",
        )
        self.rules = self._counter(
            "gpt4rec_rules",
            "Rules of lists by what became of them: held (the list keeps it anyway), bit (it changed the list), "
            "not_kept. The rules of requests share the name request, those beyond the 64th the name other.",
            "rule",
            "result",
        )
        self.rule_cost = self._counter(
            "gpt4rec_rule_cost",
            "Score that lists gave up for rules that changed them, by what scored the list: sources differ in "
            "their units.",
            "rule",
            "source",
        )
        self.stage_duration = self._histogram(
            "gpt4rec_stage_duration_seconds",
            "Time spent in one stage, failures included: " + ", ".join(STAGES) + ".",
            "stage",
            buckets=STAGE_BUCKETS,
        )
        self.batch_size = self._histogram(
            "gpt4rec_batch_size", "Rows of one graph run.", "graph", buckets=BATCH_BUCKETS
        )
        self.queue_depth = self._gauge("gpt4rec_queue_depth", "Jobs waiting for the engine.")
        self.deprecated_uses = self._counter(
            "gpt4rec_deprecated_uses",
            "Requests that used something deprecated, by what it was and by the name of the key or token; the name is "
            "empty for callers without one.",
            "what",
            "caller",
        )
        self.inflight = self._gauge("gpt4rec_inflight", "Requests in progress.")
        self.crowded = self._counter(
            "gpt4rec_crowded",
            "Requests beyond the bound of a space's requests in progress, by how they were answered: hurried (the "
            "popular items, without Redis and the model), refused (429).",
            "outcome",
        )
        self.unanswered_bytes = self._gauge(
            "gpt4rec_unanswered_bytes",
            "Bytes held of requests that are not answered yet, and of answers that are not read.",
        )
        self.bodies_refused = self._counter(
            "gpt4rec_bodies_refused",
            "Requests and unread answers ended because too many bytes were held: too_slow, too_many_bodies.",
            "reason",
        )
        self.breaker_state = self._gauge("gpt4rec_breaker_state", "1 for the present state of the breaker.", "state")
        self.fallback_mode = self._gauge("gpt4rec_fallback_mode", "1 for the mode in force.", "mode")
        self.events = self._counter(
            "gpt4rec_events",
            "Events by outcome: accepted, duplicate, failed; rejected counts whole batches; before_checkpoint counts "
            "those of the accepted that came too late for a state which remembers more than the log keeps, and "
            "inline_before_checkpoint those of a request for a list that its state leaves out for the same reason.",
            "outcome",
        )
        self.exposures = self._counter(
            "gpt4rec_exposures",
            "Lists by what became of their record: recorded (acknowledged by Redis), dropped (the queue was full, or "
            "the user was erased), failed (it could not be made or written), not_sampled (outside the recorded share).",
            "outcome",
        )
        self.recorded_events = self._counter(
            "gpt4rec_recorded_events",
            "Acknowledged events by what became of their record in the stream of events: recorded, dropped, failed.",
            "outcome",
        )
        self.exposures_waiting = self._gauge(
            "gpt4rec_exposures_waiting", "Lists and events that are not recorded yet, by stream.", "stream"
        )
        self.exposures_trimmed_unread = self._counter(
            "gpt4rec_exposures_trimmed_unread",
            "Entries that were trimmed from a stream before the consumer group of the sink was given them.",
            "stream",
        )
        self.rate_checks = self._counter(
            "gpt4rec_rate_checks",
            "Rate checks of API keys, counted in Redis (shared) or, while it is unavailable, by this process (own): "
            "allowed, refused.",
            "where",
            "outcome",
        )
        self.model_attempts = self._counter(
            "gpt4rec_model_attempts",
            "Finished model attempts: ok, late (no answer before the deadline), failed.",
            "outcome",
        )
        self.filters_held = self._gauge("gpt4rec_filters_held", "Filters whose masks the engine holds.")
        self.filter_bytes = self._gauge("gpt4rec_filter_bytes", "Bytes of the masks of filters, in host memory.")
        self.filter_builds = self._counter(
            "gpt4rec_filter_builds",
            "New filters by outcome: built, failed, evicted (dropped to make room for others), late (a request did not "
            "wait to the end), refused_caller and refused_total (the ration of the caller, or of all, is spent).",
            "outcome",
        )
        self.items_stored = self._gauge("gpt4rec_items_stored", "Items stored over HTTP that this process knows of.")
        self.item_changes = self._counter(
            "gpt4rec_item_changes",
            "Changes of items over HTTP by outcome: created, updated, unchanged, deleted, missing, conflict, full, "
            "refused (a line of an import that is not valid).",
            "outcome",
        )
        self.item_delay = self._histogram(
            "gpt4rec_item_delay_seconds",
            "Time from a change of an item in Redis until the lists of this process follow it.",
            buckets=ITEM_DELAY_BUCKETS,
        )
        self.state_cache = self._counter(
            "gpt4rec_state_cache",
            "Lookups of histories in the process (level memory: hit, stale, miss) and uses of encoder states (level "
            "state: hit, extended, rebuilt, stored, lost, dropped; of those rebuilt, resumed from a checkpoint, and "
            "with a gap of events that the log trimmed before any state had them).",
            "level",
            "outcome",
        )
        self.kept_lists = self._counter(
            "gpt4rec_kept_lists",
            "Answers of /recommend by whether their list was kept from the same question before: hit, miss, never "
            "(explained lists, lists that are drawn anew, of named items or of events in the request, and those made "
            "without the model or the stored history). Nothing is counted with GPT4REC_ANSWERS_MIB=0.",
            "outcome",
        )
        self.kept_list_bytes = self._gauge("gpt4rec_kept_list_bytes", "Estimated memory of the lists that are kept.")
        self.spans = self._counter(
            "gpt4rec_spans",
            "Spans of traces by what became of them: exported (a collector took them), failed (it did not).",
            "outcome",
        )
        self.redis_errors = self._counter(
            "gpt4rec_redis_errors", "Redis commands that failed or timed out.", "operation"
        )
        self.log_lines_dropped = self._counter(
            "gpt4rec_log_lines_dropped",
            "Lines of the log that were not written: the reader of stderr stalls or is gone, or the disk is full.",
        )
        self.worker_replaced = self._counter(
            "gpt4rec_worker_replaced", "Worker processes that ended or hung and were replaced by another one."
        )
        self.file_hangs = self._gauge(
            "gpt4rec_file_hangs", "1 while a file that the service follows cannot be read: its disk hangs.", "file"
        )
        self.redis_state = self._gauge(
            "gpt4rec_redis_state", "1 for what the latest probe of Redis found: ok, or why it cannot be used.", "cause"
        )
        self.histories_missing = self._counter(
            "gpt4rec_histories_missing",
            "Reads that found a part of a history gone, as after an eviction: the log (the version is there), the "
            "version (the log is there), or both (an encoder state is there).",
            "part",
        )
        self.model_info = self._gauge("gpt4rec_model_info", "1 for the model in service.", "version")
        self.models_held = self._gauge(
            "gpt4rec_models_held", "Models held beside the one in service, for experiments and the hold-out."
        )
        self.model_bytes_held = self._gauge(
            "gpt4rec_model_bytes_held", "Bytes by which the process was seen to grow for the held models."
        )
        self.model_evictions = self._counter(
            "gpt4rec_model_evictions", "Models that were closed to make room for those of other spaces."
        )
        self.model_reopenings = self._counter(
            "gpt4rec_model_reopenings", "Models that were opened again after that: opened, failed.", "outcome"
        )
        self.models_evicted = self._gauge(
            "gpt4rec_models_evicted", "Models that are closed at present; the rungs below answer in their place."
        )
        self.experiment_lists = self._counter(
            "gpt4rec_experiment_lists",
            "Lists by running experiment, by the arm of their subject, and by outcome: ok, late, failed (an attempt at "
            "the model), below (the model); a list may be several of the last three.",
            "experiment",
            "arm",
            "outcome",
        )
        self.experiment_withheld = self._gauge(
            "gpt4rec_experiment_model_withheld",
            "Part of the traffic of an arm that its breaker keeps from the model, 0 to 1, by running experiment.",
            "experiment",
            "arm",
        )
        self.shadow_requests = self._counter(
            "gpt4rec_shadow_requests",
            "Requests of running shadows by outcome: compared, dropped (too many waited), busy (no spare time), "
            "skipped (the answer did not come from the rung full, or the candidate cannot answer it), failed.",
            "experiment",
            "outcome",
        )
        self.shadow_overlap = self._histogram(
            "gpt4rec_shadow_overlap",
            "Share of the items of a list that the candidate of a running shadow would have shown too.",
            "experiment",
            buckets=SHARE_BUCKETS,
        )
        self.shadow_duration = self._histogram(
            "gpt4rec_shadow_duration_seconds",
            "Time from the plan of a request to its list, of what was shown and of the candidate of a running shadow.",
            "experiment",
            "list",
            buckets=LATENCY_BUCKETS,
        )
        self.model_reload = self._counter(
            "gpt4rec_model_reload",
            "Switches of the model, by outcome: activated, refused (the new model failed; the old one stays), "
            "missing (an operator chose it, but it is not on the disk of this replica).",
            "outcome",
        )
        self.burn_rate = self._gauge(
            "gpt4rec_error_budget_burn_rate",
            "How many times faster than allowed an error budget is used, over 1m, 5m, 1h: late model attempts "
            "(latency), failed ones (errors), answers from below the model (served).",
            "objective",
            "window",
        )

        self.watch = self._gauge(
            "gpt4rec_watch",
            "Figures of the lists and the traffic of the last whole hour and day (UTC) of this process: coverage, "
            "entropy, novelty, tail_share, repeats, overlap_yesterday, score_auc, score_calibration, unknown_items, "
            "new_users.",
            "statistic",
            "window",
        )
        self.watched = self._gauge(
            "gpt4rec_watched", "Lists and events that the figures of the last hour and day are of.", "kind", "window"
        )
        self.drift = self._gauge(
            "gpt4rec_drift",
            "Jensen-Shannon divergence, in bits, of the last hour and day from the baseline of the model's artefact.",
            "statistic",
            "window",
        )
        self.drift_threshold = self._gauge(
            "gpt4rec_drift_threshold",
            "Divergence that a window with so many subjects hardly ever reaches by chance.",
            "statistic",
            "window",
        )
        self.drifted = self._gauge(
            "gpt4rec_drifted", "1 if the divergence of the last hour, or day, is above its threshold.", "statistic",
            "window",
        )  # fmt: skip
        self.watch_baseline = self._gauge(
            "gpt4rec_watch_baseline",
            "1 for what the artefact says about the traffic it was made on: ok, missing (there is no drift to show), "
            "unreadable.",
            "state",
        )
        self.ordered_lists = self._counter(
            "gpt4rec_ordered_lists",
            "Lists whose first items an order model put into order, by the segment of the user: changed, or the same.",
            "segment",
            "outcome",
        )
        self.shown_items = self._counter(
            "gpt4rec_shown_items",
            "Items in watched lists, by the segment of the user and the popularity of the item.",
            "segment",
            "popularity",
        )
        self.shown_categories = self._counter(
            "gpt4rec_shown_categories",
            "Items in watched lists, by the segment of the user and the category of the item; the largest by name.",
            "segment",
            "category",
        )
        self.watch_skipped = self._counter(
            "gpt4rec_watch_skipped",
            "Lists and events that were not watched: more than 2,048 in a second, or of another model.",
            "kind",
        )

        # Looking a child up by its labels takes longer than updating it.
        self._stages = {name: self.stage_duration.labels(name) for name in STAGES}
        self._attempts = {name: self.model_attempts.labels(name) for name in ATTEMPTS}
        self._requests: dict[tuple[str, int, str], Histogram] = {}
        # Counts of /recommend beside the histogram: collecting that makes a thousand objects, which takes milliseconds.
        self._latency: dict[str, list[int]] = {}
        self._failed = 0

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        self.label_names[name] = labels
        counter = PlainCounter(name, meaning, labels, registry=self.registry)
        for value in _FROM_ZERO.get(name, ()):
            counter.labels(value)
        return counter

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        self.label_names[name] = labels
        return Gauge(name, meaning, labels, registry=self.registry)

    def _histogram(self, name: str, meaning: str, *labels: str, buckets: Sequence[float]) -> Histogram:
        self.label_names[name] = labels
        return PlainHistogram(name, meaning, labels, buckets=buckets, registry=self.registry)

    def render(self, form: TextFormat = PLAIN) -> bytes:
        """Returns the metrics as text."""
        return form.write(self.registry)

    def snapshot(self) -> MetricsSnapshot:
        """Returns what was counted so far, for the console. Cheap enough to be called every second."""
        answers: Totals[tuple[str, str, str]] = Totals()
        segments: Totals[str] = Totals()
        for labels, count in _counts(self.recommendations):
            answers[labels["source"], labels["rung"], labels["reason"]] += count
            segments[labels["segment"]] += count
        return MetricsSnapshot(
            answers=answers,
            segments=segments,
            latency={source: tuple(counts) for source, counts in self._latency.items()},
            late=sum(count for _, count in _counts(self.deadline_missed)),
            failed=self._failed,
            events=sum(count for labels, count in _counts(self.events) if labels["outcome"] == "accepted"),
            cache=Totals({f"{labels['level']}:{labels['outcome']}": n for labels, n in _counts(self.state_cache)}),
        )

    def answered(
        self, route: str, status: int, source: str, seconds: float, exemplar: dict[str, str] | None = None
    ) -> None:
        """Counts an answered request.

        Args:
            route: The path of its route, with placeholders.
            status: The HTTP status of the answer.
            source: What made the list: gpt4rec, item_cf, popular or repeat; empty for other routes.
            seconds: From its arrival to the last byte of the answer.
            exemplar: Labels that lead to its trace; None if there is none.
        """
        child = self._requests.get((route, status, source))
        if child is None:
            child = self._requests[route, status, source] = self.request_duration.labels(route, str(status), source)
        child.observe(seconds, exemplar)
        if route == RECOMMEND and status == HTTPStatus.OK:
            if source not in self._latency:
                self._latency[source] = [0] * (len(LATENCY_BUCKETS) + 1)
            self._latency[source][bisect_left(LATENCY_BUCKETS, seconds)] += 1
        elif route == RECOMMEND and status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            self._failed += 1

    def attempted(self, outcome: str) -> None:
        """Counts a model attempt that ended; outcomes other than `ATTEMPTS` are not counted.

        Attempts that were never made, or whose caller went away, have such an outcome.
        """
        if outcome in self._attempts:
            self._attempts[outcome].inc()

    def stage(self, name: str, exemplar: dict[str, str] | None = None) -> _Stage:
        """Returns a context that measures the time of a stage, also when it fails.

        Args:
            name: The stage.
            exemplar: Labels that lead to its trace; None if there is none.
        """
        return _Stage(self._stages[name], exemplar)

    def file_lane(self, file: str, patience_s: float = PATIENCE_S) -> DiskLane:
        """Returns a lane that shows whether the file hangs.

        Args:
            file: What is read: a fixed name, not a path.
            patience_s: How long a call may take.
        """
        gauge = self.file_hangs.labels(file)
        return DiskLane(file, gauge.set, patience_s)

    def hanging_files(self) -> list[str]:
        """Returns the files that the service follows and cannot read, because their disk hangs."""
        samples = (sample for family in self.file_hangs.collect() for sample in family.samples)
        return [sample.labels["file"] for sample in samples if sample.value]

    def count_up_to(self, counter: Counter, total: float) -> None:
        """Raises a counter without labels to a total that is counted elsewhere."""
        counter.inc(max(0.0, total - value_of(counter)))

    def one_hot(self, gauge: Gauge, names: Iterable[str], present: str) -> None:
        """Sets a gauge to 1 for the label `present`, and to 0 for the other names."""
        for name in names:
            gauge.labels(name).set(1.0 if name == present else 0.0)


class _Stage:
    """Observes how long its body took. A class: a generator as a context takes longer than most stages are measured."""

    __slots__ = ("_began", "_exemplar", "_times")

    def __init__(self, times: Histogram, exemplar: dict[str, str] | None) -> None:
        self._times, self._exemplar = times, exemplar

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._times.observe(time.perf_counter() - self._began, self._exemplar)


def value_of(metric: Counter | Gauge, *labels: str) -> float:
    """Returns the present value of a counter or gauge, or of its child with these labels."""
    child = metric.labels(*labels) if labels else metric
    return next(iter(child.collect())).samples[0].value


def _counts(counter: Counter) -> Iterator[tuple[Mapping[str, str], int]]:
    """Yields the labels and the count of each child."""
    for family in counter.collect():
        for sample in family.samples:
            if sample.name.endswith("_total"):
                yield sample.labels, int(sample.value)
