"""What the alert rules make of a fault, minute by minute, and what Alertmanager would tell of it.

promtool evaluates the real rules over series that a scenario writes down; `told` applies the routes and the inhibition
of `alertmanager.yml` to the alerts that fire, by the rules of Alertmanager's documentation.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from deploy.prometheus import rules as written

FOLDER = Path(written.__file__).parent
CONFIG: dict[str, Any] = yaml.safe_load((FOLDER / "alertmanager.yml").read_text("utf-8"))
RULE_FILES = ("rules.yml", "fleet.yml", "intake.yml", "sink.yml", "loop.yml", "watch.yml", "roles.yml", "spaces.yml")

Alert = Mapping[str, str]
# Minutes, and what a series does in each of them.
Part = tuple[int, float | None]


def counter(*parts: Part) -> str:
    """The values of a counter that grows by so much in each minute of a part; None for no samples."""
    values, total = [], 0.0
    for minutes, growth in parts:
        for _ in range(minutes):
            total += growth or 0.0
            values.append("_" if growth is None else f"{total:g}")
    return " ".join(values)


def gauge(*parts: Part) -> str:
    """The values of a gauge."""
    return " ".join("_" if value is None else f"{value:g}" for minutes, value in parts for _ in range(minutes))


def timeline(series: Mapping[str, str], minutes: Sequence[int]) -> list[list[Alert]]:
    """Returns the alerts that fire in each of these minutes."""
    wrong = [{"labels": "none", "value": 0}]
    asked = [
        {"expr": 'ALERTS{alertstate="firing"}', "eval_time": f"{minute}m", "exp_samples": wrong} for minute in minutes
    ]
    test = {
        "rule_files": [str(FOLDER / name) for name in RULE_FILES],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": asked,
            }
        ],
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scenario.yml"
        path.write_text(yaml.safe_dump(test, width=10**9), encoding="utf-8")
        done = subprocess.run(["promtool", "test", "rules", str(path)], check=False, capture_output=True, text=True)
    # Each expectation is wrong on purpose, so promtool says what there was instead.
    said = re.findall(r"time: (\w+),\n\s+exp: .*\n\s+got: (.*)", done.stdout + done.stderr)
    assert len(said) == len(minutes), done.stdout + done.stderr
    return [[_labels(found) for found in re.findall(r"\{([^}]*)\}", got)] for _, got in said]


def _labels(text: str) -> Alert:
    found = dict(re.findall(r'(\w+)="([^"]*)"', text))
    return {name: value for name, value in found.items() if name not in ("__name__", "alertstate")}


def matches(matchers: Sequence[str], alert: Alert) -> bool:
    """Whether an alert has what all matchers ask for."""
    for matcher in matchers:
        found = re.fullmatch(r'(\w+)(=~|!~|!=|=)"?(.*?)"?', matcher.strip())
        assert found, matcher
        name, operator, wanted = found.groups()
        value = alert.get(name, "")
        same = re.fullmatch(wanted, value) is not None if "~" in operator else value == wanted
        if same is operator.startswith("!"):
            return False
    return True


def muted(alert: Alert, firing: Sequence[Alert], config: Mapping[str, Any] = CONFIG) -> bool:
    """Whether an alert that fires names the cause of this one."""
    for rule in config["inhibit_rules"]:
        source, target, equal = rule["source_matchers"], rule["target_matchers"], rule["equal"]
        if not matches(target, alert):
            continue
        for cause in firing:
            # One that is both cause and effect of the rule is muted only by what is a cause alone.
            twofold = matches(source, alert) and matches(target, cause)
            if matches(source, cause) and not twofold and all(alert.get(e, "") == cause.get(e, "") for e in equal):
                return True
    return False


def told(firing: Sequence[Alert], severity: str = "page") -> list[Alert]:
    """The alerts of a severity that somebody is told of."""
    return [alert for alert in firing if alert["severity"] == severity and not muted(alert, firing)]


def grouped(alerts: Sequence[Alert], config: Mapping[str, Any] = CONFIG) -> set[tuple[str, ...]]:
    """What alerts become in Alertmanager: one message a group."""
    return {tuple(alert.get(name, "") for name in config["route"]["group_by"]) for alert in alerts}
