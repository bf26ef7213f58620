"""Generates the dashboard: `python -m deploy.grafana.dashboard > deploy/grafana/dashboards/gpt4rec.json`.

Its rows of panels lead from the answers that callers get, through the budgets, to the inside of the service. Every
expression selects by the dashboard's variables `job` and `instance`. The hourly shares are the recorded ones that the
alerts use (`deploy.prometheus.rules`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import typer

from deploy.prometheus.rules import BURNS, objectives
from service.cli.outermost import run_command
from service.common.settings import Settings
from service.guard.error_budgets import BudgetSettings

WIDTH = 24
_HEIGHT = 8
_CHOSEN = 'job=~"$job", instance=~"$instance"'
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_BUDGET_S = Settings.model_fields["deadline_ms"].default / 1000.0


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a panel; `heat` asks for the buckets of a heatmap."""

    expr: str
    legend: str = ""
    heat: bool = False


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


def _rate(metric: str, by: str = "", **labels: str) -> str:
    """The rate of a counter; a label with `|` has one of several values."""
    pairs = (f'{name}{"=~" if "|" in value else "="}"{value}"' for name, value in labels.items())
    chosen = ", ".join([_CHOSEN, *pairs])
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} (rate(gpt4rec_{metric}{{{chosen}}}[$__rate_interval]))"


def _hourly(metric: str) -> str:
    return f"sum (increase(gpt4rec_{metric}_total{{{_CHOSEN}}}[1h])) or vector(0)"


def _quantile(share: float, metric: str, by: str = "le", **labels: str) -> str:
    return f"histogram_quantile({share:g}, {_rate(metric + '_bucket', by, **labels)})"


def _gauge(metric: str, reduce: str, by: str = "", **labels: str) -> str:
    chosen = ", ".join([_CHOSEN, *(f'{name}="{value}"' for name, value in labels.items())])
    grouped = f" by ({by})" if by else ""
    return f"{reduce}{grouped} (gpt4rec_{metric}{{{chosen}}})"


def _by_lists(statistic: str, window: str = "hour") -> str:
    """The mean of a figure of the last hour, or day, over the replicas, weighted by their lists."""
    chosen = f'{_CHOSEN}, window="{window}"'
    lists = f'gpt4rec_watched{{{chosen}, kind="lists"}}'
    weighted = f'gpt4rec_watch{{{chosen}, statistic="{statistic}"}} * on (job, instance) {lists}'
    return f"sum ({weighted}) / sum ({lists})"


_LISTS = {"route": "/recommend"}
_DURATION = "request_duration_seconds"
_ANSWERS = (
    Panel(
        "Requests", "By route.", (Query(_rate(f"{_DURATION}_count", "route"), "{{route}}"),), "reqps", stacked=True
    ),
    Panel(
        "Latency of /recommend",
        "From arrival to the last byte, whatever the outcome; the line is the default budget.",
        tuple(Query(_quantile(share, _DURATION, **_LISTS), f"p{share * 100:g}") for share in (0.5, 0.95, 0.99)),
        "s", limit=_BUDGET_S,
    ),
    Panel(
        "Lists by source", "What made them: the model, the signals below it (item_cf) or popularity.",
        (Query(_rate("recommendations_total", "source"), "{{source}}"),), "reqps", stacked=True,
    ),
    Panel(
        "Degraded lists by reason", "Why a list is not the model's best.",
        (Query(_rate("recommendations_total", "reason"), "{{reason}}"),), "reqps", stacked=True,
    ),
    Panel(
        "Rules of lists", "Lists by what became of each rule: held, bit, not_kept.",
        (Query(_rate("rules_total", "rule, result"), "{{rule}} {{result}}"),), "reqps",
    ),
    Panel(
        "Score given up for rules", "Each second, by rule and by what scored the list.",
        (Query(_rate("rule_cost_total", "rule, source"), "{{rule}} {{source}}"),), "short",
    ),
    Panel(
        "p99 of /recommend by source", "Lists of the fallback must be in time as well.",
        (Query(_quantile(0.99, _DURATION, "le, source", **_LISTS), "{{source}}"),), "s", limit=_BUDGET_S,
    ),
    Panel(
        "Distribution of the latency of /recommend", "Each column shows how many requests took how long.",
        (Query(_rate(f"{_DURATION}_bucket", "le", **_LISTS), "{{le}}", heat=True),), "s", kind="heatmap",
    ),
    Panel(
        "Lists that missed their deadline",
        "By rung. No rung is started that cannot finish in time, so here the process was held up.",
        (Query(f"{_rate('deadline_missed_total', 'rung')} or vector(0)", "{{rung}}"),), "reqps",
    ),
    Panel(
        "Deprecated, still used", "By what it is and by the name of the key or token.",
        (Query(f"{_rate('deprecated_uses_total', 'what, caller')} or vector(0)", "{{what}} {{caller}}"),), "reqps",
    ),
    Panel(
        "Answers by status", "All routes; the service degrades instead of answering 5xx.",
        (Query(_rate(f"{_DURATION}_count", "status"), "{{status}}"),), "reqps", stacked=True,
    ),
)  # fmt: skip


def _budgets(settings: BudgetSettings) -> tuple[Panel, ...]:
    named = objectives(settings)
    shares = [Query(f'{one.share(BURNS[0].long)}{{job=~"$job"}}', one.name) for one in named]
    return (
        Panel(
            "Burn rate", "How many times too fast each budget burns, in the service's own windows. 1 is allowed.",
            (Query(_gauge("error_budget_burn_rate", "max", "objective, window"), "{{objective}} {{window}}"),),
            limit=1.0,
        ),
        Panel(
            f"Bad share over {BURNS[0].long}", "Recorded by the rules; the page alerts use it.",
            tuple(shares), "percentunit",
        ),
        Panel(
            "Model attempts", "By outcome.", (Query(_rate("model_attempts_total", "outcome"), "{{outcome}}"),),
            "reqps", stacked=True,
        ),
        Panel(
            "Breaker", "Replicas in each state.", (Query(_gauge("breaker_state", "sum", "state"), "{{state}}"),),
            stacked=True,
        ),
        Panel(
            "Mode", "Replicas in each mode.", (Query(_gauge("fallback_mode", "sum", "mode"), "{{mode}}"),), stacked=True
        ),
        Panel(
            "Model", "Replicas that serve each version.",
            (Query(_gauge("model_info", "sum", "version"), "{{version}}"),), stacked=True,
        ),
        Panel(
            "Lists by arm", "Of running experiments; a list may be late, failed and below the model at once.",
            (Query(_rate("experiment_lists_total", "experiment, arm, outcome"),
                   "{{experiment}} {{arm}} {{outcome}}"),), "reqps",
        ),
        Panel(
            "Withheld from the model by arm", "What the breakers of arms keep from their models, on the worst replica.",
            (Query(_gauge("experiment_model_withheld", "max", "experiment, arm"), "{{experiment}} {{arm}}"),),
            "percentunit", limit=1.0,
        ),
        Panel(
            "Shadows", "Requests that run on a candidate as well, by what became of them.",
            (Query(_rate("shadow_requests_total", "experiment, outcome"), "{{experiment}} {{outcome}}"),), "reqps",
        ),
        Panel(
            "Shadows: overlap", "Mean share of the items of a list that the candidate would have shown too.",
            (Query(f"{_rate('shadow_overlap_sum', 'experiment')} / {_rate('shadow_overlap_count', 'experiment')}",
                   "{{experiment}}"),), "percentunit",
        ),
        Panel(
            "Shadows: time of a list", "p95 of what was shown, waiting included, and of the candidate.",
            (Query(_quantile(0.95, "shadow_duration_seconds", "le, experiment, list"),
                   "{{experiment}} {{list}}"),), "s",
        ),
        Panel(
            "Models held", "Beside the one in service, on the replica with most of them.",
            (Query(_gauge("models_held", "max"), "models"),
             Query(f"{_gauge('model_bytes_held', 'max')} / 2^30", "GiB")),
        ),
        Panel(
            "Model changes", "By outcome, per hour.",
            (Query(f"sum by (outcome) (increase(gpt4rec_model_reload_total{{{_CHOSEN}}}[1h])) or vector(0)",
                   "{{outcome}}"),),
        ),
    )  # fmt: skip


_INSIDE = (
    Panel(
        "p95 of each stage", "Failures included.",
        (Query(_quantile(0.95, "stage_duration_seconds", "le, stage"), "{{stage}}"),), "s",
    ),
    Panel(
        "Rows per graph run", "The mean: how full batches are.",
        (Query(f"{_rate('batch_size_sum', 'graph')} / {_rate('batch_size_count', 'graph')}", "{{graph}}"),),
    ),
    Panel(
        "In flight", "Requests being answered, and jobs that wait for the engine.",
        (Query(_gauge("inflight", "sum"), "in flight"), Query(_gauge("queue_depth", "sum"), "queue")),
    ),
    Panel(
        "Requests on their way",
        "Bytes of requests not answered yet and of answers not read yet; how many were ended because of them.",
        (Query(_gauge("unanswered_bytes", "sum"), "bytes"),
         Query(f"{_rate('bodies_refused_total', 'reason')} or vector(0)", "{{reason}}")),
    ),
    Panel(
        "Event loop lag", "The worst replica.", (Query(_gauge("event_loop_lag_seconds", "max"), "lag"),), "s"
    ),
    Panel(
        "Workers replaced, log lines lost", "Per hour. Log lines are lost when their reader stalls or is gone.",
        (Query(_hourly("worker_replaced"), "workers"), Query(_hourly("log_lines_dropped"), "log lines")),
    ),
    Panel(
        "Spans", "Of traces that are kept; those that fail are lost: the collector is away or refuses them.",
        (Query(f"{_rate('spans_total', 'outcome')} or vector(0)", "{{outcome}}"),), "reqps", stacked=True,
    ),
    Panel(
        "Files that hang", "Replicas that cannot read a file they follow.",
        (Query(f"{_gauge('file_hangs', 'sum', 'file')} or vector(0)", "{{file}}"),), stacked=True,
    ),
)  # fmt: skip
_REDIS = (
    Panel(
        "Events", "By outcome; failed events were refused with 503.",
        (Query(_rate("events_total", "outcome"), "{{outcome}}"),), "reqps", stacked=True,
    ),
    Panel(
        "Failed Redis commands", "Including those that took too long.",
        (Query(f"{_rate('redis_errors_total', 'operation')} or vector(0)", "{{operation}}"),), "reqps",
    ),
    Panel(
        "Redis", "Replicas by what the latest probe of Redis found: ok, or why it cannot be used.",
        (Query(f"{_gauge('redis_state', 'sum', 'cause')} > 0", "{{cause}}"),), stacked=True,
    ),
    Panel(
        "Histories gone", "Reads that found a part of a history missing: Redis evicts keys, or somebody deletes them.",
        (Query(f"{_rate('histories_missing_total', 'part')} or vector(0)", "{{part}}"),), "reqps", stacked=True,
    ),
    Panel(
        "Recorded lists", "Lists by what became of their record; all but `not_sampled` and `recorded` are lost.",
        (Query(f"{_rate('exposures_total', 'outcome')} or vector(0)", "{{outcome}}"),), "reqps", stacked=True,
    ),
    Panel(
        "Recorded events", "Events by what became of their record in the stream of events.",
        (Query(f"{_rate('recorded_events_total', 'outcome')} or vector(0)", "{{outcome}}"),), "reqps", stacked=True,
    ),
    Panel(
        "Records that wait", "Lists and events that are not written yet; they grow while Redis is away.",
        (Query(_gauge('exposures_waiting', 'sum', 'stream'), "{{stream}}"),), stacked=True,
    ),
    Panel(
        "Trimmed unread", "Entries of the streams that were trimmed before the sink was given them.",
        (Query(f"{_rate('exposures_trimmed_unread_total', 'stream')} or vector(0)", "{{stream}}"),), "reqps",
    ),
    Panel(
        "Rate limit checks", "For keys with a rate: the verdict of Redis, or of the replica alone.",
        (Query(f"{_rate('rate_checks_total', 'outcome')} or vector(0)", "{{outcome}}"),), "reqps", stacked=True,
    ),
    Panel(
        "New filters", "By outcome; refused: the ration of a caller, or of all, is spent.",
        (Query(f"{_rate('filter_builds_total', 'outcome')} or vector(0)", "{{outcome}}"),), "reqps", stacked=True,
    ),
    Panel(
        "Items changed", "Over HTTP, by outcome.",
        (Query(f"{_rate('item_changes_total', 'outcome')} or vector(0)", "{{outcome}}"),), "reqps", stacked=True,
    ),
    Panel(
        "Items stored", "Over HTTP, as the replica that knows most has them.",
        (Query(_gauge("items_stored", "max"), "items"),),
    ),
    Panel(
        "Delay of items", "From a change of an item to the lists of a replica, in 95 of 100 cases.",
        (Query(_quantile(0.95, "item_delay_seconds"), "p95"),), "s",
    ),
    Panel(
        "Filters held", "Masks of filters in the memory of all replicas.",
        (Query(_gauge("filters_held", "sum"), "filters"), Query(_gauge("filter_bytes", "sum"), "bytes")),
    ),
    Panel(
        "History and state cache", "By level and outcome: in the process (memory) and in Redis (state).",
        (Query(_rate("state_cache_total", "level, outcome"), "{{level}} {{outcome}}"),), "reqps", stacked=True,
    ),
    Panel(
        "Kept lists", "Share of the answers whose list was kept from the question before, and of those never kept.",
        tuple(Query(f"{_rate('kept_lists_total', outcome=name)} / {_rate('kept_lists_total')}", name)
              for name in ("hit", "never")), "percentunit",
    ),
    Panel(
        "Memory of kept lists", "In all replicas; bounded by GPT4REC_ANSWERS_MIB in each process.",
        (Query(_gauge("kept_list_bytes", "sum"), "bytes"),), "bytes",
    ),
)  # fmt: skip


_WATCHED = (
    Panel(
        "Drift of the last hour", "Divergence from the model's baseline in bits; each statistic has a threshold.",
        (Query(_gauge("drift", "max", "statistic", window="hour"), "{{statistic}}"),
         Query(_gauge("drift_threshold", "min", "statistic", window="hour"), "threshold {{statistic}}")),
    ),
    Panel(
        "Drift of the last day", "Replicas whose day drifted, by statistic, and replicas without a baseline.",
        (Query(_gauge("drifted", "sum", "statistic", window="day"), "{{statistic}}"),
         Query(_gauge("watch_baseline", "sum", state="missing"), "no baseline")),
    ),
    Panel(
        "Coverage, tail and repeats", "Of the last hour, as the mean of the replicas, weighted by their lists.",
        tuple(Query(_by_lists(name), name) for name in
              ("coverage", "tail_share", "repeats", "new_users", "unknown_items")), "percentunit",
    ),
    Panel(
        "Scores and what users take",
        "Of the last hour: how often what was taken scores higher (0.5 is chance), and the calibration error.",
        tuple(Query(_by_lists(name), name) for name in ("score_auc", "score_calibration")), "percentunit",
    ),
    Panel(
        "Overlap with yesterday", "Of the items listed on the last day with those of the day before.",
        (Query(_by_lists("overlap_yesterday", "day"), "overlap"),), "percentunit",
    ),
    Panel(
        "Rare items by segment", "Share of the items listed that are tail, cold or new, for each group of users.",
        (Query(_rate("shown_items_total", "segment", popularity="tail|cold|new") + " / "
               + _rate("shown_items_total", "segment"), "{{segment}}"),), "percentunit",
    ),
    Panel(
        "Entropy and novelty", "Of the last hour, in bits.",
        tuple(Query(_by_lists(name), name) for name in ("entropy", "novelty")),
    ),
    Panel(
        "Listed items by popularity", "Of all segments.",
        (Query(_rate("shown_items_total", "popularity"), "{{popularity}}"),), stacked=True,
    ),
    Panel(
        "Listed items by category", "Of all segments.",
        (Query(_rate("shown_categories_total", "category"), "{{category}}"),), stacked=True,
    ),
    Panel(
        "Lists put into order", "By an order model: changed by it, or the same; per second, of all segments.",
        (Query(_rate("ordered_lists_total", "outcome"), "{{outcome}}"),), stacked=True,
    ),
    Panel(
        "Watched, skipped", "Lists and events of the last hour, and those that are not in the figures, per second.",
        (Query(_gauge("watched", "sum", "kind", window="hour"), "{{kind}}"),
         Query(f"{_rate('watch_skipped_total', 'kind')} or vector(0)", "skipped {{kind}}")),
    ),
)  # fmt: skip
_KAFKA = (
    Panel(
        "Kafka: messages not stored yet", "By partition, of `gpt4rec ingest kafka`.",
        (Query(_gauge("intake_lag", "sum", "partition"), "{{partition}}"),), stacked=True,
    ),
    Panel(
        "Kafka: messages and dead events", "Messages by outcome, and events that went to the dead-letter topic.",
        (Query(_rate("intake_messages_total", "outcome"), "{{outcome}}"),
         Query(_rate("intake_events_total", outcome="dead"), "dead events")), "reqps",
    ),
    Panel(
        "Kafka: from the message to the store", "From its timestamp to the acknowledgement of the store.",
        tuple(Query(_quantile(share, "intake_delay_seconds"), f"p{share * 100:g}") for share in (0.5, 0.95, 0.99)), "s",
    ),
    Panel(
        "Kafka: held up", "Processes that read nothing because Redis or the dead-letter topic is away, and retries.",
        (Query(_gauge("intake_paused", "sum"), "held up"),
         Query(f"{_rate('intake_retries_total', 'what')} or vector(0)", "{{what}}")),
    ),
)  # fmt: skip


_LOOP = (
    Panel(
        "The sink: entries in no file yet", "By stream, of `gpt4rec loop sink`.",
        (Query(_gauge("sink_lag", "sum", "stream"), "{{stream}}"),), stacked=True,
    ),
    Panel(
        "The sink: entries", "By outcome, and attempts that failed.",
        (Query(_rate("sink_entries_total", "outcome"), "{{outcome}}"),
         Query(f"{_rate('sink_failures_total', 'what')} or vector(0)", "failed: {{what}}")), "reqps",
    ),
    Panel(
        "The loop: cycles in a day", "By outcome, of `gpt4rec loop run`.",
        (Query("sum by (outcome) (increase(gpt4rec_loop_cycles_total[1d]))", "{{outcome}}"),), stacked=True,
    ),
    Panel(
        "The loop: steps", "How long each took when it last ended.",
        (Query(_gauge("loop_step_seconds", "max", "step"), "{{step}}"),), "s",
    ),
    Panel(
        "What came of the lists: click-through", "Lists of yesterday and today with a click, by model.",
        (Query(_gauge("outcomes_click_through", "max", "group", dimension="model"), "{{group}}"),), "percentunit",
    ),
    Panel(
        "What came of the lists: by arm", "Click-through of the arms of experiments.",
        (Query(_gauge("outcomes_click_through", "max", "group", dimension="arm"), "{{group}}"),), "percentunit",
    ),
    Panel(
        "What came of the lists: not told apart",
        "Lists that count as (other), because a day has too many groups, and lists closed before their time.",
        (Query(f"{_rate('sink_unnamed_lists_total', 'dimension')} or vector(0)", "(other): {{dimension}}"),
         Query(_rate("sink_closed_early_total"), "closed early")), "reqps",
    ),
)  # fmt: skip


def dashboard(settings: BudgetSettings) -> dict[str, Any]:
    """Returns the dashboard as Grafana reads it."""
    rows = (
        ("Answers", _ANSWERS), ("Budgets, breaker and mode", _budgets(settings)),
        ("Inside the service", _INSIDE), ("Events and Redis", _REDIS),
        ("What lists and traffic are like", _WATCHED), ("Kafka", _KAFKA), ("The loop", _LOOP),
    )  # fmt: skip
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in rows:
        place = {"x": 0, "y": top, "w": WIDTH, "h": 1}
        panels.append({"id": len(panels) + 1, "type": "row", "title": title, "gridPos": place, "panels": []})
        across = WIDTH // 2
        for n, panel in enumerate(row):
            place = {"x": n % 2 * across, "y": top + 1 + n // 2 * _HEIGHT, "w": across, "h": _HEIGHT}
            panels.append({"id": len(panels) + 1, "gridPos": place, **_panel(panel)})
        top += 1 + (len(row) + 1) // 2 * _HEIGHT
    return {
        "uid": "gpt4rec", "title": "gpt4rec", "tags": ["gpt4rec"], "schemaVersion": 39, "version": 1,
        "editable": True, "refresh": "10s", "time": {"from": "now-1h", "to": "now"}, "timezone": "browser",
        "templating": {"list": _variables()}, "annotations": {"list": [_alerts()]}, "panels": panels,
    }  # fmt: skip


def text(settings: BudgetSettings) -> str:
    """Returns the dashboard as JSON."""
    return json.dumps(dashboard(settings), indent=2) + "\n"


def _panel(panel: Panel) -> dict[str, Any]:
    targets = [
        {
            "refId": chr(ord("A") + n), "datasource": _SOURCE, "expr": query.expr, "legendFormat": query.legend,
            "format": "heatmap" if query.heat else "time_series",
        }
        for n, query in enumerate(panel.queries)
    ]  # fmt: skip
    found: dict[str, Any] = {
        "type": panel.kind, "title": panel.title, "description": panel.text, "datasource": _SOURCE, "targets": targets,
    }  # fmt: skip
    if panel.kind == "heatmap":
        return {**found, "options": {"calculate": False, "yAxis": {"unit": panel.unit}, "cellGap": 1}}
    custom: dict[str, Any] = {"lineWidth": 1, "fillOpacity": 20 if panel.stacked else 0, "showPoints": "never"}
    if panel.stacked:
        custom["stacking"] = {"mode": "normal", "group": "A"}
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0, "custom": custom}
    if panel.limit is not None:
        custom["thresholdsStyle"] = {"mode": "line"}
        steps = [{"color": "green", "value": None}, {"color": "red", "value": panel.limit}]
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
    return {
        **found,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
    }


def _variables() -> list[dict[str, Any]]:
    source = {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"}
    job = _variable("job", "label_values(gpt4rec_inflight, job)")
    return [source, job, _variable("instance", 'label_values(gpt4rec_inflight{job=~"$job"}, instance)')]


def _variable(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name, "type": "query", "label": name.capitalize(), "datasource": _SOURCE, "refresh": 2,
        "query": {"query": query, "refId": name}, "includeAll": True, "multi": True, "allValue": ".+",
        "current": {"text": "All", "value": "$__all"},
    }  # fmt: skip


def _alerts() -> dict[str, Any]:
    return {
        "name": "Alerts", "datasource": _SOURCE, "enable": True, "iconColor": "red",
        "expr": 'ALERTS{alertname=~"Gpt4rec.+", alertstate="firing", job=~"$job"}',
        "titleFormat": "{{alertname}}", "textFormat": "{{severity}}",
    }  # fmt: skip


def main() -> None:
    """Prints the dashboard."""
    typer.echo(text(BudgetSettings()), nl=False)


if __name__ == "__main__":
    run_command(main)
