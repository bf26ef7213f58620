"""The runbook: an entry for each alert, tried by a trial that held, with the commands that the trial ran."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from loadtests.common import results
from loadtests.harness.prometheus import scaled
from loadtests.reliability.runbook_stage import SCALE
from loadtests.reliability.runbook_trials import TRIALS
from service.cli.ops import app

ROOT = Path(__file__).resolve().parents[4]
TEXT = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
RULES: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules.yml").read_text(encoding="utf-8"))
RECORDED = {row["alert"]: row for row in (results.load("runbook") or {"trials": []})["trials"]}
ALERTS = sorted({rule["alert"] for group in RULES["groups"] for rule in group["rules"] if "alert" in rule})
ENTRIES = dict(re.findall(r"(?ms)^## (\w+)\n(.*?)(?=^## |\Z)", TEXT))
# Words of an entry's command that the operator fills in.
_VERBS = 3


def test_every_alert_has_its_entry_and_its_trial_and_there_are_no_others() -> None:
    assert sorted(ENTRIES) == ALERTS
    assert sorted(trial.alert for trial in TRIALS) == ALERTS
    assert sorted(RECORDED) == ALERTS, "run: python -m loadtests.reliability.runbook --artifact DIR"


def test_every_alert_links_its_own_entry() -> None:
    for rule in (rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule):
        assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{rule['alert'].lower()}"


@pytest.mark.parametrize("alert", ALERTS)
def test_an_entry_says_what_it_means_what_to_look_at_and_what_to_press(alert: str) -> None:
    body = ENTRIES[alert]
    for part in ("**Means:**", "**Look at**", "**Press"):
        assert part in body, part
    assert "gpt4rec ops" in body


@pytest.mark.parametrize("alert", ALERTS)
def test_the_entrys_own_commands_led_to_a_mended_service(alert: str) -> None:
    row = RECORDED[alert]
    assert row["holds"], row["broken"]
    assert row["fired_after_s"] <= row["silent_after_s"]
    assert row["well_after_s"] > 0
    assert row["errors"] == {}, "somebody was not answered"
    commands = [step["command"] for step in row["steps"] if "command" in step]
    assert commands
    flat = " ".join((ENTRIES[alert] + TEXT[: TEXT.index("## ")]).split())
    for command in commands:
        words = shlex.split(command)
        verb = " ".join(words[: 5 if words[2:4] == ["fallback", "set"] else 4 if len(words) > _VERBS else _VERBS])
        assert verb in flat or verb.startswith("gpt4rec ops fallback set model"), verb


def test_every_command_of_the_runbook_exists() -> None:
    runner = CliRunner()
    commands = {tuple(found.split()) for found in re.findall(r"gpt4rec ops ((?:[a-z]+ ?)+)", TEXT)}
    assert len(commands) > 5
    for words in commands:
        known = [word for word in words if word not in {"fallback", "model", "auto"} or word == words[0]]
        assert runner.invoke(app, [*known[:2], "--help"]).exit_code == 0, words


def test_links_within_the_runbook_lead_somewhere() -> None:
    anchors = {name.lower() for name in ENTRIES}
    assert set(re.findall(r"\]\(#(\w+)\)", TEXT)) <= anchors


def test_scaled_rules_differ_in_windows_and_least_counts_only() -> None:
    text = (ROOT / "deploy" / "prometheus" / "rules.yml").read_text(encoding="utf-8")
    scaled_rules = yaml.safe_load(scaled(text, SCALE))
    for group, other in zip(RULES["groups"], scaled_rules["groups"], strict=True):
        for rule, shorter in zip(group["rules"], other["rules"], strict=True):
            plain = [re.sub(r"\[\w+\]", "[]", one["expr"]).replace(")", " ) ").split() for one in (rule, shorter)]
            differing = [(a, b) for a, b in zip(*plain, strict=True) if a != b]
            assert all(float(a) == pytest.approx(float(b) * SCALE, rel=1e-4) or b == "1" for a, b in differing)
            assert rule.get("labels") == shorter.get("labels")
