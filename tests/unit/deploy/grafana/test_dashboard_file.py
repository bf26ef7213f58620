"""The dashboard's file: up to date, its panels do not overlap, its metrics and labels exist."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from deploy.grafana import dashboard as written
from deploy.grafana import queries
from deploy.prometheus import rules
from service.guard.error_budgets import BudgetSettings
from service.intake.intake_metrics import IntakeMetrics
from service.metrics.encode_metrics import EncodeMetrics
from service.metrics.loop_metrics import LoopMetrics
from service.metrics.service_metrics import Metrics
from service.metrics.sink_metrics import SinkMetrics
from service.ops import space_metrics

FOLDER = Path(written.__file__).parent
BOARD: dict[str, Any] = json.loads((FOLDER / "dashboards" / "gpt4rec.json").read_text(encoding="utf-8"))
EXPRS = [target["expr"] for panel in BOARD["panels"] for target in panel.get("targets", ())]
# Labels that Prometheus adds when it scrapes, or /metrics where there are spaces, and no family has by itself.
_SCRAPED = {"job", "instance", "le", "space"}


def test_the_dashboard_is_what_its_generator_writes() -> None:
    text = (FOLDER / "dashboards" / "gpt4rec.json").read_text(encoding="utf-8")
    assert text == written.text(BudgetSettings()), (
        "run: python -m deploy.grafana.dashboard > deploy/grafana/dashboards/gpt4rec.json"
    )


def test_every_family_of_the_service_is_on_the_dashboard() -> None:
    named = set(re.findall(r"gpt4rec_\w+", " ".join(EXPRS)))
    for family in Metrics().registry.collect():
        assert any(name.startswith(family.name) for name in named), family.name


def test_every_query_names_metrics_and_labels_that_exist() -> None:
    service = Metrics()
    intake = IntakeMetrics(service.registry)
    sink = SinkMetrics(service.registry)
    loop = LoopMetrics(service.registry)
    roles = EncodeMetrics(service.registry)
    kinds = {family.name: family.type for family in service.registry.collect()}
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
    known = {name + suffix for name, kind in kinds.items() for suffix in suffixes[kind]}
    labels = {
        label for of in (service, intake, sink, loop, roles) for names in of.label_names.values() for label in names
    } | _SCRAPED
    groups = rules.rules(BudgetSettings())["groups"]
    recorded = {rule["record"] for group in groups for rule in group["rules"] if "record" in rule}
    for expr in EXPRS:
        own = set(re.findall(r"job:\w+(?::\w+)?", expr))
        assert own <= recorded, expr
        assert set(re.findall(r"gpt4rec_\w+", re.sub(r"job:\w+(?::\w+)?", "", expr))) <= known, expr
        for names in re.findall(r"by \(([^)]*)\)", expr):
            assert set(names.split(", ")) <= labels, expr
        assert set(re.findall(r"(\w+)=~?\"", expr)) <= labels, expr


def test_what_a_process_has_once_is_selected_without_a_space() -> None:
    metrics = Metrics()
    once = {family.name for name in space_metrics._ONCE for family in getattr(metrics, name).collect()}
    assert once == queries.ONCE
    for expr in EXPRS:
        spaced = "$space" in expr
        named = re.findall(r"gpt4rec_\w+", re.sub(r"job:\w+(?::\w+)?", "", expr))
        beside = all(
            name.startswith(("gpt4rec_intake", "gpt4rec_sink", "gpt4rec_loop", "gpt4rec_outcomes"))
            or any(name.startswith(one) for one in once)
            for name in named
        )
        assert spaced is not (beside and bool(named)), expr


def test_what_has_a_segment_can_be_narrowed_to_one() -> None:
    labels = Metrics().label_names
    of_segments = [name for name, known in labels.items() if "segment" in known]
    assert len(of_segments) > 2
    for expr in EXPRS:
        for name in of_segments:
            assert (f"{name}_total{{" in expr) is (f"{name}_total{{" in expr and 'segment=~"$segment"' in expr), expr
    variables = {one["name"]: one for one in BOARD["templating"]["list"]}
    assert {name for name, one in variables.items() if one.get("allValue") == ".*"} == {"space", "segment"}


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= written.WIDTH
        assert not cells & taken, panel["title"]
        taken |= cells
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(ids) == len(set(ids)) > 15


def test_what_is_provisioned_is_what_compose_mounts() -> None:
    root = FOLDER.parent.parent
    compose = yaml.safe_load((root / "docker-compose.yml").read_text(encoding="utf-8"))
    mounted = {one.split(":")[1]: root / one.split(":")[0] for one in compose["services"]["grafana"]["volumes"][:-1]}
    provider = yaml.safe_load((FOLDER / "provisioning" / "dashboards" / "gpt4rec.yml").read_text(encoding="utf-8"))
    assert mounted[provider["providers"][0]["options"]["path"]].resolve() == FOLDER / "dashboards"
    assert mounted["/etc/grafana/provisioning"].resolve() == FOLDER / "provisioning"
    source = yaml.safe_load((FOLDER / "provisioning" / "datasources" / "prometheus.yml").read_text(encoding="utf-8"))
    assert source["datasources"][0]["url"] == "http://prometheus:9090"
    assert "prometheus" in compose["services"]
