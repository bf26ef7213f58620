"""The parts of panels: what is drawn, and the queries behind it.

Every query selects by the dashboard's variables: `job` and `instance`; `space`, but for what a process has once; and
`segment`, where a family has it. A deployment without spaces has no label `space`, which `.*` matches.
"""

from __future__ import annotations

from dataclasses import dataclass

from service.metrics.service_metrics import Metrics
from service.settings.service_settings import Settings

BUDGET_S = Settings.model_fields["deadline_ms"].default / 1000.0
_EVERYWHERE = 'job=~"$job", instance=~"$instance"'
CHOSEN = f'{_EVERYWHERE}, space=~"$space"'
# Families that other processes have, and those that each process of the service has once, for all of its spaces.
_PROCESSES = ("intake_", "sink_", "loop_", "outcomes_")
ONCE = frozenset(
    f"gpt4rec_{name}"
    for name in (
        "event_loop_lag_seconds",
        "unanswered_bytes",
        "bodies_refused",
        "log_lines_dropped",
        "spans",
        "worker_replaced",
    )
)
_LABELS = Metrics().label_names
# What makes the value of a label an expression.
_EXPRESSION = frozenset("|.")


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a panel.

    Attributes:
        heat: Whether it asks for the buckets of a heatmap.
        exemplars: Whether traces of single requests are drawn with it.
    """

    expr: str
    legend: str = ""
    heat: bool = False
    exemplars: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel.

    Attributes:
        text: Shown as the panel's description.
        unit: Grafana's name of the unit.
        kind: Grafana's name of the panel type.
        limit: Where to draw a line.
    """

    title: str
    text: str
    queries: tuple[Query, ...]
    unit: str = "short"
    kind: str = "timeseries"
    limit: float | None = None
    stacked: bool = False


def chosen(metric: str) -> str:
    """Returns the selectors by variables of a metric, without its prefix."""
    family = f"gpt4rec_{metric}"
    of = max((name for name in _LABELS if family.startswith(name)), key=len, default="")
    if metric.startswith(_PROCESSES) or of in ONCE:
        return _EVERYWHERE
    return f'{CHOSEN}, segment=~"$segment"' if "segment" in _LABELS.get(of, ()) else CHOSEN


def rate(metric: str, by: str = "", **labels: str) -> str:
    """Returns the rate of a counter; the value of a label may be an expression."""
    pairs = (f'{name}{"=~" if _EXPRESSION & set(value) else "="}"{value}"' for name, value in labels.items())
    selected = ", ".join([chosen(metric), *pairs])
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} (rate(gpt4rec_{metric}{{{selected}}}[$__rate_interval]))"


def hourly(metric: str) -> str:
    """Returns by how much a counter grew in an hour."""
    return f"sum (increase(gpt4rec_{metric}_total{{{chosen(metric)}}}[1h])) or vector(0)"


def quantile(share: float, metric: str, by: str = "le", **labels: str) -> str:
    """Returns a quantile of a histogram."""
    return f"histogram_quantile({share:g}, {rate(metric + '_bucket', by, **labels)})"


def gauge(metric: str, reduce: str, by: str = "", **labels: str) -> str:
    """Returns a gauge, reduced over the replicas."""
    selected = ", ".join([chosen(metric), *(f'{name}="{value}"' for name, value in labels.items())])
    grouped = f" by ({by})" if by else ""
    return f"{reduce}{grouped} (gpt4rec_{metric}{{{selected}}})"


def by_lists(statistic: str, window: str = "hour") -> str:
    """Returns the mean of a figure of the last hour, or day, over the replicas, weighted by their lists."""
    selected = f'{CHOSEN}, window="{window}"'
    lists = f'gpt4rec_watched{{{selected}, kind="lists"}}'
    weighted = f'gpt4rec_watch{{{selected}, statistic="{statistic}"}} * on (job, instance, space) {lists}'
    return f"sum ({weighted}) / sum ({lists})"
