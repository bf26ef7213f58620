"""The result of an evaluation: figures of each system and comparisons, as tables and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from model.evaluation.bootstrap import Interval
from model.evaluation.metrics import KS
from model.evaluation.question_facts import QuestionFacts
from service.artifact.array_types import Float64Array, IntArray

_FAMILIES: tuple[str, ...] = ("recall", "ndcg", "mrr", "coverage", "novelty", "diversity")
# Systems that fit beside each other in 80 columns, and the length of lists that a table of more shows.
_COLUMNS_MAX, _SHOWN_K = 5, 10
METRICS: tuple[str, ...] = tuple(f"{family}@{k}" for family in _FAMILIES for k in KS)


@dataclass(frozen=True, eq=False)
class SystemResult:
    """Figures and lists of one system.

    Attributes:
        figures: {metric: mean over users}; None where it is not defined for any user. Coverage is one figure for all
            users and has no values per user.
        per_user: {metric: [users] float64}, NaN where not defined, in the order of the hold-out part.
        lists: [users, depth] int64 item indices, padded with -1.
    """

    figures: Mapping[str, float | None]
    per_user: Mapping[str, Float64Array]
    lists: IntArray


@dataclass(frozen=True, slots=True)
class Comparison:
    """`system` minus `baseline` in one metric, paired by user."""

    metric: str
    system: str
    baseline: str
    interval: Interval
    confidence: float
    samples: int

    @property
    def better(self) -> bool:
        """Whether the whole interval is above 0."""
        return self.interval.low > 0

    def to_json(self) -> dict[str, Any]:
        """Returns the comparison as one flat object."""
        return {
            "metric": self.metric,
            "system": self.system,
            "baseline": self.baseline,
            "difference": self.interval.difference,
            "low": self.interval.low,
            "high": self.interval.high,
            "p_value": self.interval.p_value,
            "confidence": self.confidence,
            "samples": self.samples,
        }


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Several systems on the same users of one part of a split.

    Attributes:
        history_kept: Whether lists may hold items of the user's history.
        facts: What the targets say about the figures.
    """

    split: str
    users: int
    protocol: str
    systems: Mapping[str, SystemResult]
    comparisons: tuple[Comparison, ...]
    history_kept: bool
    facts: QuestionFacts

    def to_json(self) -> dict[str, Any]:
        """Returns the protocol, the facts, `{"systems": {name: {metric: figure}}}` and the comparisons."""
        return {
            "split": self.split,
            "users": self.users,
            "protocol": self.protocol,
            "systems": {
                name: {metric: result.figures[metric] for metric in METRICS if metric in result.figures}
                for name, result in self.systems.items()
            },
            "comparisons": [comparison.to_json() for comparison in self.comparisons],
            "history_kept": self.history_kept,
            **self.facts.to_json(),
        }

    def table(self) -> Table:
        """Returns a table of metrics by systems, with the best accuracy figures in bold.

        Where there are many systems, it has a row for each, with the figures at 10 alone.
        """
        if len(self.systems) > _COLUMNS_MAX:
            return self._table_of_many()
        table = Table(title=f"{self.users:,} users, {self.split} part", caption=self.protocol)
        table.add_column("metric")
        for name in self.systems:
            table.add_column(name, justify="right")
        for metric in METRICS:
            figures = [result.figures.get(metric) for result in self.systems.values()]
            if any(metric in result.figures for result in self.systems.values()):
                table.add_row(metric, *_cells(metric, figures), end_section=metric.endswith(f"@{KS[-1]}"))
        return table

    def _table_of_many(self) -> Table:
        caption = f"{self.protocol}; figures at {_SHOWN_K}, --json has the others as well"
        table = Table(title=f"{self.users:,} users, {self.split} part", caption=caption)
        table.add_column("system")
        shown = [metric for metric in METRICS if metric.endswith(f"@{_SHOWN_K}")]
        metrics = [metric for metric in shown if any(metric in result.figures for result in self.systems.values())]
        columns = [_cells(metric, [one.figures.get(metric) for one in self.systems.values()]) for metric in metrics]
        for metric in metrics:
            table.add_column(metric.partition("@")[0], justify="right")
        for row, name in enumerate(self.systems):
            table.add_row(name, *(column[row] for column in columns))
        return table

    def sentences(self) -> tuple[str, ...]:
        """Returns what a reader of the tables must know besides the figures."""
        kept = "kept in the lists" if self.history_kept else "left out of the lists"
        return (f"{self.facts.repeats:.1%} of the targets were in the history, which is {kept}", *self.facts.warnings())

    def comparison_table(self) -> Table:
        """Returns a table with a row for each comparison: difference, interval and p-value."""
        table = Table(title="paired bootstrap over users")
        for column in ("metric", "systems", "difference", "interval", "p"):
            table.add_column(column, justify="left" if column in ("metric", "systems") else "right")
        for comparison in self.comparisons:
            interval = comparison.interval
            table.add_row(
                comparison.metric,
                f"{comparison.system} - {comparison.baseline}",
                f"{interval.difference:+.4f}",
                f"{interval.low:+.4f} … {interval.high:+.4f}",
                f"{interval.p_value:.4f}",
                style="bold" if comparison.better else None,
            )
        return table


def _cells(metric: str, figures: list[float | None]) -> list[str]:
    """Formats figures. Only accuracy metrics have a best one: more novelty is not better by itself."""
    known = [figure for figure in figures if figure is not None]
    best = max(known, default=None) if metric.startswith(("recall", "ndcg", "mrr")) else None
    return [
        "-" if figure is None else f"[bold]{figure:.4f}[/bold]" if figure == best else f"{figure:.4f}"
        for figure in figures
    ]
