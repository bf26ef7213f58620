"""Counts in the metrics what became of rules. Labels are bounded, whatever names policies give over time."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import Counter

from service.engine.rule_report import RuleOutcome
from service.metrics.service_metrics import Metrics

# Names of rules that have series of their own; those that come later share one.
LABELS_MAX = 64
OTHER = "other"

_Counters = dict[tuple[str, str], Counter]


class RuleCounts:
    """Counts the rules of the lists of a process."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._labels: set[str] = set()
        self._lists: _Counters = {}
        self._costs: _Counters = {}

    def count(self, outcomes: Sequence[RuleOutcome], source: str) -> None:
        """Counts the rules of one list.

        Args:
            outcomes: What became of each.
            source: What scored the list.
        """
        for outcome in outcomes:
            lists = self._lists.get((outcome.label, outcome.result))
            if lists is None:
                lists = self._counter(self._lists, self._metrics.rules, outcome.label, outcome.result)
            lists.inc()
            if outcome.cost:
                costs = self._costs.get((outcome.label, source))
                if costs is None:
                    costs = self._counter(self._costs, self._metrics.rule_cost, outcome.label, source)
                costs.inc(outcome.cost)

    def _counter(self, known: _Counters, family: Counter, label: str, other: str) -> Counter:
        """The counter of some labels, remembered: looking it up in the family takes longer than counting."""
        counter: Counter = family.labels(self._label(label), other)
        if label in self._labels:
            known[label, other] = counter
        return counter

    def _label(self, label: str) -> str:
        if label not in self._labels:
            if len(self._labels) >= LABELS_MAX:
                return OTHER
            self._labels.add(label)
        return label
