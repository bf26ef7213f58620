"""Generates the dashboard: `python -m deploy.grafana.dashboard > deploy/grafana/dashboards/gpt4rec.json`.

Its rows of panels lead from the answers that callers get, through the budgets, to the inside of the service. The hourly
shares are the recorded ones that the alerts use (`deploy.prometheus.rules`).
"""

from __future__ import annotations

import json
from typing import Any

import typer

from deploy.grafana.answer_panels import ANSWERS, PARTS, budgets
from deploy.grafana.inner_panels import INSIDE, REDIS
from deploy.grafana.queries import Panel
from deploy.grafana.watched_panels import KAFKA, LOOP, WATCHED
from service.cli.outermost import run_command
from service.guard.error_budgets import BudgetSettings

WIDTH = 24
_HEIGHT = 8
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def dashboard(settings: BudgetSettings) -> dict[str, Any]:
    """Returns the dashboard as Grafana reads it."""
    rows = (
        ("Answers", ANSWERS), ("By space and segment", PARTS), ("Budgets, breaker and mode", budgets(settings)),
        ("Inside the service", INSIDE), ("Events and Redis", REDIS),
        ("What lists and traffic are like", WATCHED), ("Kafka", KAFKA), ("The loop", LOOP),
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
            "format": "heatmap" if query.heat else "time_series", **({"exemplar": True} if query.exemplars else {}),
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
    of_job = 'gpt4rec_recommendations_total{job=~"$job", space=~"$space"}'
    return [
        source,
        _variable("job", "label_values(gpt4rec_inflight, job)"),
        _variable("instance", 'label_values(gpt4rec_inflight{job=~"$job"}, instance)'),
        # What has no such label is shown with all of them.
        _variable("space", 'label_values(gpt4rec_inflight{job=~"$job"}, space)', everything=".*"),
        _variable("segment", f"label_values({of_job}, segment)", everything=".*"),
    ]


def _variable(name: str, query: str, everything: str = ".+") -> dict[str, Any]:
    return {
        "name": name, "type": "query", "label": name.capitalize(), "datasource": _SOURCE, "refresh": 2,
        "query": {"query": query, "refId": name}, "includeAll": True, "multi": True, "allValue": everything,
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
