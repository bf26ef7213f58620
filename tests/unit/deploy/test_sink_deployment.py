"""What deploys `gpt4rec loop sink`: image, compose profile, kustomize component and alerts name what exists."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import kubernetes_validate
import pytest
from packaging.requirements import Requirement
from prometheus_client import CollectorRegistry

from service.metrics.service_metrics import Metrics
from service.metrics.sink_metrics import OUTCOMES, SinkMetrics
from service.settings.service_settings import variable_names
from tests.support.deployment import DEPLOY, ROOT, alerts, lint, locked, read

COMPONENT = DEPLOY / "kubernetes" / "components" / "loop"


POD: dict[str, Any] = read(COMPONENT / "sink.yaml")["spec"]["template"]["spec"]
SINK: dict[str, Any] = read(ROOT / "docker-compose.yml")["services"]["sink"]


def test_the_image_has_no_faults_that_a_linter_finds_and_locked_packages_that_the_project_allows() -> None:
    lint(DEPLOY / "Dockerfile.sink")
    versions = locked("sink")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    wanted = {one.name: one.specifier for one in map(Requirement, (*extras["train"], *extras["loop"]))}
    for name in ("polars", "scipy", "fsspec"):
        assert wanted[name].contains(versions[name]), name


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
    for rule in alerts("sink.yml", families):
        assert set(re.findall(r'outcome="(\w+)"', rule["expr"])) <= set(OUTCOMES)
