"""The metrics of `gpt4rec loop run`."""

from __future__ import annotations

from typing import ClassVar

from prometheus_client import CollectorRegistry, Counter, Gauge

KINDS = ("increment", "full")
STEPS = ("begin", "sink", "data", "train", "export", "gate", "publish", "canary", "promote")
OUTCOMES = ("promoted", "skipped", "refused", "returned", "timed_out", "superseded", "failed")


class LoopMetrics:
    """What the loop counts and measures."""

    label_names: ClassVar[dict[str, tuple[str, ...]]] = {
        "gpt4rec_loop_cycles": ("kind", "outcome"),
        "gpt4rec_loop_failures": ("step",),
        "gpt4rec_loop_step": ("step",),
        "gpt4rec_loop_step_seconds": ("step",),
    }
    """The labels of each family that has any, by its name."""

    def __init__(self, registry: CollectorRegistry) -> None:
        names = self.label_names
        self.cycles = Counter(
            "gpt4rec_loop_cycles",
            "Cycles that ended: promoted, skipped (too few new events), refused (by the gate or the service), returned "
            "(by the canary), timed_out (the canary), superseded (somebody else changed the model), failed.",
            names["gpt4rec_loop_cycles"],
            registry=registry,
        )
        self.failures = Counter(
            "gpt4rec_loop_failures",
            "Attempts at a step that failed.",
            names["gpt4rec_loop_failures"],
            registry=registry,
        )
        self.step = Gauge(
            "gpt4rec_loop_step", "1 for the step that a cycle is in.", names["gpt4rec_loop_step"], registry=registry
        )
        self.step_seconds = Gauge(
            "gpt4rec_loop_step_seconds",
            "How long a step took when it last ended.",
            names["gpt4rec_loop_step_seconds"],
            registry=registry,
        )
        self.finished_at = Gauge(
            "gpt4rec_loop_finished_timestamp_seconds",
            "When a cycle last ended, other than failed; the first start where none has.",
            registry=registry,
        )
        self.promoted_at = Gauge(
            "gpt4rec_loop_promoted_timestamp_seconds", "When a cycle last promoted a model; 0: never.",
            registry=registry,
        )  # fmt: skip
        self.patience = Gauge(
            "gpt4rec_loop_patience_seconds",
            "How long no cycle may end without an alert: three intervals and the time for a canary.",
            registry=registry,
        )
        self.without_promotion = Gauge(
            "gpt4rec_loop_not_promoted_in_a_row",
            "Newest cycles in a row whose candidate was refused, returned, timed out or failed; skipped ones aside.",
            registry=registry,
        )
        self.new_events = Gauge(
            "gpt4rec_loop_new_events", "New events that the newest cycle found in the log.", registry=registry
        )
        for kind in KINDS:  # a series that appears with its first increase is invisible to `rate`
            for outcome in OUTCOMES:
                self.cycles.labels(kind, outcome)
        for step in STEPS:
            self.failures.labels(step)
            self.step.labels(step)

    def enter(self, step: str | None) -> None:
        """Shows which step a cycle is in; None: no cycle is under way."""
        for name in STEPS:
            self.step.labels(name).set(name == step)
