"""The Prometheus metrics of the service. No label ever contains a user or an item."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter as Totals
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from service.metrics.catalogue_metrics import CatalogueMetrics
from service.metrics.experiment_metrics import ExperimentMetrics
from service.metrics.families import LATENCY_BUCKETS, MetricFamilies
from service.metrics.recording_metrics import RecordingMetrics
from service.metrics.text_formats import PLAIN, TextFormat
from service.metrics.watch_metrics import WatchMetrics
from service.process.disk_lane import PATIENCE_S, DiskLane

STAGE_BUCKETS = (
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.2, 0.5, 1.0,
)  # fmt: skip
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)

RECOMMEND = "/recommend"
STAGES = ("state", "queue", "encode", "decode", "fallback", "serialize")
ATTEMPTS = ("ok", "late", "failed")
BREAKER_STATES = ("closed", "open", "half_open")
MODES = ("auto", "fallback", "model")


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


class Metrics:
    """All metrics of one process, on one registry.

    Attributes:
        registry: Where they are.
        label_names: The labels of each family, by its name.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        families = MetricFamilies(registry or CollectorRegistry())
        self.registry, self.label_names = families.registry, families.label_names
        self.request_duration = families.histogram(
            "gpt4rec_request_duration_seconds",
            "Time from the arrival of a request to its last byte, whatever its outcome.",
            "route",
            "status",
            "source",
            buckets=LATENCY_BUCKETS,
        )
        self.deadline_missed = families.counter(
            "gpt4rec_deadline_missed", "Answers sent after their deadline, by rung.", "rung"
        )
        self.loop_lag = families.gauge("gpt4rec_event_loop_lag_seconds", "How late the event loop ran its last timer.")
        self.recommendations = families.counter(
            "gpt4rec_recommendations",
            "Answers of /recommend by what made them. The reason is empty for a whole list of the rung full, the "
            "strategy for a list that no model decoded.",
            "source",
            "rung",
            "reason",
            "segment",
            "strategy",
        )
        self.rules = families.counter(
            "gpt4rec_rules",
            "Rules of lists by what became of them: held (the list keeps it anyway), bit (it changed the list), "
            "not_kept. The rules of requests share the name request, those beyond the 64th the name other.",
            "rule",
            "result",
        )
        self.rule_cost = families.counter(
            "gpt4rec_rule_cost",
            "Score that lists gave up for rules that changed them, by what scored the list: sources differ in "
            "their units.",
            "rule",
            "source",
        )
        self.stage_duration = families.histogram(
            "gpt4rec_stage_duration_seconds",
            "Time spent in one stage, failures included: " + ", ".join(STAGES) + ".",
            "stage",
            buckets=STAGE_BUCKETS,
        )
        self.batch_size = families.histogram(
            "gpt4rec_batch_size", "Rows of one graph run.", "graph", buckets=BATCH_BUCKETS
        )
        self.queue_depth = families.gauge("gpt4rec_queue_depth", "Jobs waiting for the engine.")
        self.deprecated_uses = families.counter(
            "gpt4rec_deprecated_uses",
            "Requests that used something deprecated, by what it was and by the name of the key or token; the name is "
            "empty for callers without one.",
            "what",
            "caller",
        )
        self.inflight = families.gauge("gpt4rec_inflight", "Requests in progress.")
        self.crowded = families.counter(
            "gpt4rec_crowded",
            "Requests beyond the bound of a space's requests in progress, by how they were answered: hurried (the "
            "popular items, without Redis and the model), refused (429).",
            "outcome",
            from_zero=("hurried", "refused"),
        )
        self.unanswered_bytes = families.gauge(
            "gpt4rec_unanswered_bytes",
            "Bytes held of requests that are not answered yet, and of answers that are not read.",
        )
        self.bodies_refused = families.counter(
            "gpt4rec_bodies_refused",
            "Requests and unread answers ended because too many bytes were held: too_slow, too_many_bodies.",
            "reason",
            from_zero=("too_slow", "too_many_bodies"),
        )
        self.breaker_state = families.gauge("gpt4rec_breaker_state", "1 for the present state of the breaker.", "state")
        self.fallback_mode = families.gauge("gpt4rec_fallback_mode", "1 for the mode in force.", "mode")
        self.events = families.counter(
            "gpt4rec_events",
            "Events by outcome: accepted, duplicate, failed; rejected counts whole batches; before_checkpoint counts "
            "those of the accepted that came too late for a state which remembers more than the log keeps, and "
            "inline_before_checkpoint those of a request for a list that its state leaves out for the same reason.",
            "outcome",
            from_zero=("accepted", "duplicate", "failed", "rejected"),
        )
        self.recording = RecordingMetrics(families)
        self.rate_checks = families.counter(
            "gpt4rec_rate_checks",
            "Rate checks of API keys, counted in Redis (shared) or, while it is unavailable, by this process (own): "
            "allowed, refused.",
            "where",
            "outcome",
        )
        self.model_attempts = families.counter(
            "gpt4rec_model_attempts",
            "Finished model attempts: ok, late (no answer before the deadline), failed.",
            "outcome",
            from_zero=ATTEMPTS,
        )
        self.catalogue = CatalogueMetrics(families)
        self.state_cache = families.counter(
            "gpt4rec_state_cache",
            "Lookups of histories in the process (level memory: hit, stale, miss) and uses of encoder states (level "
            "state: hit, extended, rebuilt, stored, lost, dropped; of those rebuilt, resumed from a checkpoint, and "
            "with a gap of events that the log trimmed before any state had them).",
            "level",
            "outcome",
        )
        self.kept_lists = families.counter(
            "gpt4rec_kept_lists",
            "Answers of /recommend by whether their list was kept from the same question before: hit, miss, never "
            "(explained lists, lists that are drawn anew, of named items or of events in the request, and those made "
            "without the model or the stored history). Nothing is counted with GPT4REC_ANSWERS_MIB=0.",
            "outcome",
            from_zero=("hit", "miss", "never"),
        )
        self.kept_list_bytes = families.gauge("gpt4rec_kept_list_bytes", "Estimated memory of the lists that are kept.")
        self.spans = families.counter(
            "gpt4rec_spans",
            "Spans of traces by what became of them: exported (a collector took them), failed (it did not).",
            "outcome",
            from_zero=("exported", "failed"),
        )
        self.redis_errors = families.counter(
            "gpt4rec_redis_errors", "Redis commands that failed or timed out.", "operation"
        )
        self.log_lines_dropped = families.counter(
            "gpt4rec_log_lines_dropped",
            "Lines of the log that were not written: the reader of stderr stalls or is gone, or the disk is full.",
        )
        self.worker_replaced = families.counter(
            "gpt4rec_worker_replaced", "Worker processes that ended or hung and were replaced by another one."
        )
        self.file_hangs = families.gauge(
            "gpt4rec_file_hangs", "1 while a file that the service follows cannot be read: its disk hangs.", "file"
        )
        self.redis_state = families.gauge(
            "gpt4rec_redis_state", "1 for what the latest probe of Redis found: ok, or why it cannot be used.", "cause"
        )
        self.histories_missing = families.counter(
            "gpt4rec_histories_missing",
            "Reads that found a part of a history gone, as after an eviction: the log (the version is there), the "
            "version (the log is there), or both (an encoder state is there).",
            "part",
            from_zero=("log", "version", "both"),
        )
        self.model_info = families.gauge("gpt4rec_model_info", "1 for the model in service.", "version")
        self.models_held = families.gauge(
            "gpt4rec_models_held", "Models held beside the one in service, for experiments and the hold-out."
        )
        self.model_bytes_held = families.gauge(
            "gpt4rec_model_bytes_held", "Bytes by which the process was seen to grow for the held models."
        )
        self.model_evictions = families.counter(
            "gpt4rec_model_evictions", "Models that were closed to make room for those of other spaces."
        )
        self.model_reopenings = families.counter(
            "gpt4rec_model_reopenings",
            "Models that were opened again after that: opened, failed.",
            "outcome",
            from_zero=("opened", "failed"),
        )
        self.models_evicted = families.gauge(
            "gpt4rec_models_evicted", "Models that are closed at present; the rungs below answer in their place."
        )
        self.experiments = ExperimentMetrics(families)
        self.model_reload = families.counter(
            "gpt4rec_model_reload",
            "Switches of the model, by outcome: activated, refused (the new model failed; the old one stays), "
            "missing (an operator chose it, but it is not on the disk of this replica).",
            "outcome",
        )
        self.burn_rate = families.gauge(
            "gpt4rec_error_budget_burn_rate",
            "How many times faster than allowed an error budget is used, over 1m, 5m, 1h: late model attempts "
            "(latency), failed ones (errors), answers from below the model (served).",
            "objective",
            "window",
        )

        self.watch = WatchMetrics(families)

        # Looking a child up by its labels takes longer than updating it.
        self._stages = {name: self.stage_duration.labels(name) for name in STAGES}
        self._attempts = {name: self.model_attempts.labels(name) for name in ATTEMPTS}
        self._requests: dict[tuple[str, int, str], Histogram] = {}
        # Counts of /recommend beside the histogram: collecting that makes a thousand objects, which takes milliseconds.
        self._latency: dict[str, list[int]] = {}
        self._failed = 0

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
