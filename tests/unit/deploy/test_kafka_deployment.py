"""What deploys `gpt4rec ingest kafka`: image, compose profile, kustomize component and alerts name what exists."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from packaging.requirements import Requirement
from prometheus_client import CollectorRegistry

from service.intake.intake_metrics import EVENTS, IntakeMetrics
from service.settings.service_settings import variable_names
from tests.support.deployment import DEPLOY, ROOT, alerts, lint, read

COMPONENT = DEPLOY / "kubernetes" / "components" / "kafka"
FILES = ("ingest.yaml", "ingest-network-policy.yaml")


POD: dict[str, Any] = read(COMPONENT / "ingest.yaml")["spec"]["template"]["spec"]
SERVICES: dict[str, Any] = read(ROOT / "docker-compose.yml")["services"]


def test_the_image_has_no_faults_that_a_linter_finds_and_a_locked_client_that_the_project_allows() -> None:
    lint(DEPLOY / "Dockerfile.kafka")
    name, version = re.findall(r"(?m)^(\S+)==(\S+)", (DEPLOY / "requirements" / "kafka.txt").read_text())[0]
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    [wanted] = map(Requirement, extra["kafka"])
    assert wanted.name == name
    assert wanted.specifier.contains(version)


@pytest.mark.parametrize("file", FILES)
def test_the_component_is_valid(file: str) -> None:
    kubernetes_validate.validate(read(COMPONENT / file), "1.32", strict=True)


def test_an_overlay_can_take_the_component_and_the_service_does_not_select_its_pods(tmp_path: Path) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    copy = shutil.copytree(DEPLOY / "kubernetes", tmp_path / "kubernetes")
    overlay = copy / "overlays" / "own"
    overlay.mkdir()
    text = "resources: [../../base]\ncomponents: [../../components/kafka]\n"
    (overlay / "kustomization.yaml").write_text(text, encoding="utf-8")
    done = subprocess.run(["kubectl", "kustomize", str(overlay)], check=False, capture_output=True, text=True)
    if done.returncode and "unknown field" in done.stderr:
        pytest.skip("this kubectl's kustomize is too old (5 is needed)")
    assert done.returncode == 0, done.stderr
    objects = {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(done.stdout)}
    labels = objects["Deployment", "gpt4rec-ingest"]["spec"]["template"]["metadata"]["labels"]
    assert not objects["Service", "gpt4rec"]["spec"]["selector"].items() <= labels.items()
    assert objects["NetworkPolicy", "gpt4rec-ingest"]["spec"]["podSelector"]["matchLabels"].items() <= labels.items()


def test_settings_exist_and_the_grace_covers_the_stop() -> None:
    [container] = POD["containers"]
    environment = {one["name"]: one["value"] for one in container["env"]}
    assert environment.keys() | SERVICES["ingest"]["environment"].keys() <= set(variable_names())
    drain = float(environment["GPT4REC_DRAIN_TIMEOUT_S"])
    assert POD["terminationGracePeriodSeconds"] > 2 * drain + 15
    assert int(SERVICES["ingest"]["stop_grace_period"].removesuffix("s")) > 2 * 10 + 15
    assert {SERVICES[name]["profiles"][0] for name in ("ingest", "broker")} == {"kafka"}


def test_alerts_name_metrics_that_exist_and_entries_of_the_runbook() -> None:
    registry = CollectorRegistry()
    IntakeMetrics(registry)
    for rule in alerts("intake.yml", registry.collect()):
        assert set(re.findall(r'outcome="(\w+)"', rule["expr"])) <= set(EVENTS)
        assert rule["labels"]["severity"] in ("page", "ticket")
