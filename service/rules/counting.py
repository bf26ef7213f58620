"""Counts in the metrics what became of rules. Labels are bounded, whatever names policies give over time."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import Counter

from service.common.metrics import Metrics
from service.engine.rule_report import RuleOutcome

# Names of rules that have series of their own; those that come later share one.
LABELS_MAX = 64
OTHER = "other"


class RuleCounts:
    """Counts the rules of the lists of a process."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._labels: set[str] = set()
        self._counters: dict[tuple[int, str, str], Counter] = {}

    def count(self, outcomes: Sequence[RuleOutcome], source: str) -> None:
        """Counts the rules of one list.

        Args:
            outcomes: What became of each.
            source: What scored the list.
        """
        for outcome in outcomes:
            label = self._label(outcome.label)
            self._counter(self._metrics.rules, label, outcome.result).inc()
            if outcome.cost:
                self._counter(self._metrics.rule_cost, label, source).inc(outcome.cost)

    def _counter(self, family: Counter, label: str, other: str) -> Counter:
        """The counter of some labels: looking it up in the family takes longer than counting."""
        key = id(family), label, other
        if key not in self._counters:
            self._counters[key] = family.labels(label, other)
        return self._counters[key]

    def _label(self, label: str) -> str:
        if label not in self._labels:
            if len(self._labels) >= LABELS_MAX:
                return OTHER
            self._labels.add(label)
        return label
