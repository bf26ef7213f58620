"""What deploys `gpt4rec loop sink`: image, compose profile, kustomize component and alerts name what exists."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from packaging.requirements import Requirement
from prometheus_client import CollectorRegistry

from service.common.metrics import Metrics
from service.common.settings import variable_names
from service.common.sink_metrics import OUTCOMES, SinkMetrics

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "deploy"
COMPONENT = DEPLOY / "kubernetes" / "components" / "loop"


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


POD: dict[str, Any] = read(COMPONENT / "sink.yaml")["spec"]["template"]["spec"]
SINK: dict[str, Any] = read(ROOT / "docker-compose.yml")["services"]["sink"]


def test_the_image_has_no_faults_that_a_linter_finds_and_locked_packages_that_the_project_allows() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or "hadolint"
    done = subprocess.run([hadolint, str(DEPLOY / "Dockerfile.sink")], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    locked = dict(re.findall(r"(?m)^(\S+)==(\S+)", (DEPLOY / "requirements" / "sink.txt").read_text()))
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    wanted = {one.name: one.specifier for one in map(Requirement, (*extras["train"], *extras["loop"]))}
    for name in ("polars", "scipy", "fsspec"):
        assert wanted[name].contains(locked[name]), name


@pytest.mark.parametrize("file", ["sink.yaml", "sink-network-policy.yaml"])
def test_the_component_is_valid(file: str) -> None:
    kubernetes_validate.validate(read(COMPONENT / file), "1.32", strict=True)


def test_settings_exist_and_the_grace_covers_the_stop() -> None:
    [container] = POD["containers"]
    environment = {one["name"]: one["value"] for one in container["env"]}
    assert environment.keys() | SINK["environment"].keys() <= set(variable_names())
    assert POD["terminationGracePeriodSeconds"] > 2 * float(environment["GPT4REC_DRAIN_TIMEOUT_S"]) + 15
    assert int(SINK["stop_grace_period"].removesuffix("s")) > 2 * 10 + 15
    assert SINK["profiles"] == ["loop"]
    mounts = {one["name"]: one["mountPath"] for one in container["volumeMounts"]}
    assert mounts["log"] == environment["GPT4REC_SINK_LOG"] == SINK["environment"]["GPT4REC_SINK_LOG"]


def test_alerts_name_metrics_that_exist_and_entries_of_the_runbook() -> None:
    registry = CollectorRegistry()
    SinkMetrics(registry)
    families = (*registry.collect(), *Metrics().registry.collect())
    known = {one.name + ("_total" if one.type == "counter" else "") for one in families}
    headings = re.findall(r"(?m)^## (.+)$", (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8"))
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    for rule in read(DEPLOY / "prometheus" / "sink.yml")["groups"][0]["rules"]:
        assert set(re.findall(r"gpt4rec_\w+", rule["expr"])) <= known, rule["alert"]
        assert set(re.findall(r'outcome="(\w+)"', rule["expr"])) <= set(OUTCOMES)
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert (page, anchor in anchors) == ("docs/runbook.md", True), rule["alert"]
