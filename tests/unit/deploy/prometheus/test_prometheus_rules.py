"""The rules for Prometheus: the workbook's thresholds, metrics that exist, and promtool's tests if it is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.prometheus import rules as written
from service.guard.error_budgets import BudgetSettings
from service.metrics.service_metrics import ATTEMPTS, BREAKER_STATES, MODES, Metrics
from service.settings.service_settings import Settings

FOLDER = Path(written.__file__).parent
RULES: dict[str, Any] = yaml.safe_load((FOLDER / "rules.yml").read_text(encoding="utf-8"))
ALL: list[dict[str, Any]] = [rule for group in RULES["groups"] for rule in group["rules"]]
BURNS = [rule for rule in ALL if rule.get("alert", "").endswith("BudgetBurns")]
OBJECTIVES = ("Latency", "Errors", "Served")


def burn(objective: str, window: str, rules: list[dict[str, Any]] = ALL) -> str:
    """The expression of one burn-rate alert."""
    (found,) = [
        rule["expr"]
        for rule in rules
        if rule.get("alert") == f"Gpt4rec{objective}BudgetBurns" and rule["labels"]["window"] == window
    ]
    return str(found)


def thresholds(expr: str) -> tuple[float, float, int]:
    """Thresholds of the long and the short window, and the least volume."""
    long, short, volume = re.findall(r">= ([\d.]+)", expr)
    return float(long), float(short), int(volume)


def test_the_rules_are_those_of_the_services_own_defaults() -> None:
    text = (FOLDER / "rules.yml").read_text(encoding="utf-8")
    fields = Settings.model_fields
    defaults = BudgetSettings(
        late_share=fields["latency_budget_share"].default,
        failed_share=fields["error_budget_share"].default,
        below_share=fields["served_budget_share"].default,
    )
    assert text == written.text(defaults), "run: python -m deploy.prometheus.rules > deploy/prometheus/rules.yml"


def test_every_metric_and_label_named_in_a_rule_is_one_of_the_service() -> None:
    families = {
        family.name + ("_total" if family.type == "counter" else ""): family for family in Metrics().registry.collect()
    }
    labels = Metrics().label_names
    values = {"outcome": (*ATTEMPTS, "accepted", "failed"), "mode": MODES, "state": BREAKER_STATES}
    named = 0
    for rule in ALL:
        bare = re.sub(r"job:\w+(:\w+)?", "", rule["expr"])
        for metric, selector in re.findall(r"\b(gpt4rec_\w+)(\{[^}]*\})?", bare):
            assert metric in families, metric
            named += 1
            for label, value in re.findall(r'(\w+)!?="([^"]*)"', selector):
                assert label in labels[metric.removesuffix("_total")]
                assert value in values.get(label, (value,))
    assert named > len(ALL)


def test_every_recorded_name_is_recorded_before_it_is_used() -> None:
    recorded: set[str] = set()
    for rule in ALL:
        assert set(re.findall(r"job:\w+(?::\w+)?", rule["expr"])) <= recorded
        if "record" in rule:
            assert rule["record"] not in recorded
            recorded.add(rule["record"])


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_each_objective_has_the_windows_of_the_workbook(objective: str) -> None:
    alerts = [rule for rule in BURNS if rule["alert"] == f"Gpt4rec{objective}BudgetBurns"]
    found = [(*re.findall(r"ratio_rate(\w+)", rule["expr"]), rule["labels"]["severity"]) for rule in alerts]
    assert found == [("1h", "5m", "page"), ("6h", "30m", "page"), ("3d", "6h", "ticket")]


@pytest.mark.parametrize(
    ("allowed", "expected"),
    [
        (0.001, (0.0144, 0.006, 0.001)),
        (0.01, (0.144, 0.06, 0.01)),
        (0.05, (0.525, 0.3, 0.05)),
        (0.2, (0.6, 0.6, 0.2)),
        (0.5, (0.75, 0.75, 0.5)),
        (1.0, (1.0, 1.0, 1.0)),
    ],
    ids=lambda value: str(value) if isinstance(value, float) else "",
)
def test_thresholds_are_scaled_so_that_loose_objectives_can_fire(
    allowed: float, expected: tuple[float, float, float]
) -> None:
    settings = BudgetSettings(late_share=allowed, failed_share=allowed, below_share=allowed)
    rules = [rule for group in written.rules(settings)["groups"] for rule in group["rules"]]
    for objective in OBJECTIVES:
        for window, share in zip(("1h", "6h", "3d"), expected, strict=True):
            long, short, volume = thresholds(burn(objective, window, rules))
            assert long == short == pytest.approx(share)
            assert volume * share >= written.LEAST_BAD - 1e-9 > (volume - 1) * share


def test_every_alert_says_whom_it_calls_and_what_to_look_at() -> None:
    alerts = [rule for rule in ALL if "alert" in rule]
    assert len(alerts) > len(BURNS) == 9
    for rule in alerts:
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"].endswith((".", "?"))


def test_shares_outside_of_zero_and_one_are_refused() -> None:
    command = [sys.executable, "-m", "deploy.prometheus.rules", "--latency-share", "0"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert "latency-share" in done.stderr


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
def test_promtool_finds_that_alerts_fire_when_they_should_and_only_then() -> None:
    tests = sorted(str(path) for path in FOLDER.glob("*.test.yml"))
    assert len(tests) == 9
    for command in (
        [
            "check",
            "rules",
            str(FOLDER / "rules.yml"),
            str(FOLDER / "fleet.yml"),
            str(FOLDER / "intake.yml"),
            str(FOLDER / "sink.yml"),
            str(FOLDER / "loop.yml"),
            str(FOLDER / "watch.yml"),
            str(FOLDER / "roles.yml"),
            str(FOLDER / "spaces.yml"),
        ],
        ["test", "rules", *tests],
    ):
        done = subprocess.run(["promtool", *command], check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
