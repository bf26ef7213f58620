"""One cause pages once: the rules over the metrics of a fault, and what the inhibition leaves of their alerts."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from tests.support.alerts import CONFIG, FOLDER, RULE_FILES, Alert, grouped, matches, muted, timeline, told
from tests.support.faults_told import AFTER, CAUSES, FAULTS, MINUTES, WELL

promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
ALERTS = {
    (rule["alert"], rule["labels"]["severity"])
    for name in RULE_FILES
    for group in yaml.safe_load((FOLDER / name).read_text("utf-8"))["groups"]
    for rule in group["rules"]
    if "alert" in rule
}


@functools.cache
def evaluated(fault: str) -> list[list[Alert]]:
    return timeline(FAULTS[fault](), range(MINUTES))


# Each takes a second, so the others are tried by `make fleet`.
FIRST, *OTHERS = FAULTS


@promtool
@pytest.mark.parametrize("fault", [FIRST, *(pytest.param(name, marks=pytest.mark.fleet) for name in OTHERS)])
def test_one_cause_pages_once(fault: str) -> None:
    minutes = evaluated(fault)
    assert not any(minutes[:WELL]), "nothing fires while all is well"
    paging = {alert["alertname"] for firing in minutes for alert in firing if alert["severity"] == "page"}
    assert len(paging) > 1, "the fault sets off more than one page, so there is something to mute"
    pages = [grouped(told(firing)) for firing in minutes]
    assert {page[0] for found in pages for page in found} == {CAUSES[fault]}
    assert all(len(found) <= 1 for found in pages)
    first = next(minute for minute, found in enumerate(pages) if found)
    assert first - WELL <= 10, "minutes until somebody is told"
    lasting = [bool(found) for found in pages[first:]]
    assert lasting == sorted(lasting, reverse=True), "it is told once, and stays until it is over"
    assert not grouped(told(minutes[-1])), f"all is over {AFTER} minutes after the fault"


@promtool
def test_without_the_inhibition_the_same_faults_page_more_than_once() -> None:
    """The check above can fail: what it finds is due to the configuration."""
    bare: dict[str, Any] = {**CONFIG, "inhibit_rules": []}
    minutes = evaluated("redis down")

    def pages(firing: list[Alert]) -> list[Alert]:
        return [alert for alert in firing if alert["severity"] == "page" and not muted(alert, firing, bare)]

    assert max(len(grouped(pages(firing))) for firing in minutes) >= 4


def test_two_causes_at_once_page_twice() -> None:
    firing = [
        {"alertname": "Gpt4recRedisFails", "job": "gpt4rec", "severity": "page"},
        {"alertname": "Gpt4recModelOut", "job": "shop-b", "severity": "page"},
    ]
    assert told(firing) == firing


def test_a_space_mutes_only_what_is_of_the_space() -> None:
    out = {"alertname": "Gpt4recModelOut", "job": "gpt4rec", "space": "shop", "severity": "page"}
    own = {"alertname": "Gpt4recErrorsBudgetBurns", "job": "gpt4rec", "space": "shop", "severity": "page"}
    other = {**own, "space": "outlet"}
    assert told([out, own, other]) == [out, other]


def test_no_two_alerts_mute_each_other() -> None:
    edges = {
        (source[0], target[0])
        for rule in CONFIG["inhibit_rules"]
        if "alertname" not in rule["equal"]
        for source in ALERTS
        for target in ALERTS
        if matches(rule["source_matchers"], _labels(source)) and matches(rule["target_matchers"], _labels(target))
    }
    assert edges
    reached = set(edges)
    while more := {(a, d) for a, b in reached for c, d in edges if b == c} - reached:
        reached |= more
    assert not [pair for pair in reached if pair[0] == pair[1]]


def test_the_configuration_names_alerts_that_exist() -> None:
    known = {name for name, _ in ALERTS}
    for rule in CONFIG["inhibit_rules"]:
        for matcher in (*rule["source_matchers"], *rule["target_matchers"]):
            found = re.fullmatch(r'alertname=~?"?(Gpt4rec)\(?([^")]*)\)?"?', matcher.strip())
            if found:
                assert {f"Gpt4rec{name}" for name in found[2].split("|")} <= known, matcher


@pytest.mark.skipif(shutil.which("amtool") is None, reason="amtool is not installed (Debian: prometheus-alertmanager)")
def test_alertmanager_takes_the_configuration() -> None:
    command = ["amtool", "check-config", str(FOLDER / "alertmanager.yml")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def _labels(alert: tuple[str, str]) -> dict[str, str]:
    return {"alertname": alert[0], "severity": alert[1]}
