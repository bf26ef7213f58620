"""Counts in the metrics what became of rules. Labels are bounded, whatever names policies give over time."""

from __future__ import annotations

from collections.abc import Sequence

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

    def count(self, outcomes: Sequence[RuleOutcome], source: str) -> None:
        """Counts the rules of one list.

        Args:
            outcomes: What became of each.
            source: What scored the list.
        """
        for outcome in outcomes:
            label = self._label(outcome.label)
            self._metrics.rules.labels(label, outcome.result).inc()
            if outcome.cost:
                self._metrics.rule_cost.labels(label, source).inc(outcome.cost)

    def _label(self, label: str) -> str:
        if label not in self._labels:
            if len(self._labels) >= LABELS_MAX:
                return OTHER
            self._labels.add(label)
        return label
