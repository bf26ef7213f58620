"""What deploys `gpt4rec loop run`: image, compose profile, kustomize component and alerts name what exists."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import kubernetes_validate
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from prometheus_client import CollectorRegistry

from service.metrics.loop_metrics import LoopMetrics
from service.settings.service_settings import variable_names
from tests.support.deployment import DEPLOY, ROOT, alerts, lint, locked, read

COMPONENT = DEPLOY / "kubernetes" / "components" / "loop"
FILES = ("loop.yaml", "loop-network-policy.yaml", "service-network-policy.yaml")


POD: dict[str, Any] = read(COMPONENT / "loop.yaml")["spec"]["template"]["spec"]
LOOP: dict[str, Any] = read(ROOT / "docker-compose.yml")["services"]["loop"]


def test_the_image_has_no_faults_that_a_linter_finds_and_locked_packages_that_the_project_allows() -> None:
    lint(DEPLOY / "Dockerfile.loop")
    versions = locked("loop")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    for wanted in map(Requirement, (*project["dependencies"], *extras["cpu"], *extras["train"], *extras["loop"])):
        if wanted.marker is None or wanted.marker.evaluate({"python_version": "3.11"}):
            assert wanted.specifier.contains(versions[canonicalize_name(wanted.name)]), wanted.name


@pytest.mark.parametrize("file", FILES)
def test_the_component_is_valid_and_names_its_files(file: str) -> None:
    kubernetes_validate.validate(read(COMPONENT / file), "1.32", strict=True)
    assert file in read(COMPONENT / "kustomization.yaml")["resources"]


def test_settings_exist_and_what_is_named_is_mounted() -> None:
    [container] = POD["containers"]
    environment = {one["name"]: one["value"] for one in container["env"]}
    image = re.findall(r"GPT4REC_\w+(?==)", (DEPLOY / "Dockerfile.loop").read_text(encoding="utf-8"))
    assert environment.keys() | LOOP["environment"].keys() | set(image) <= set(variable_names())
    assert POD["terminationGracePeriodSeconds"] > 25 < int(LOOP["stop_grace_period"].removesuffix("s"))
    assert LOOP["profiles"] == ["loop"]
    mounts = {one["mountPath"] for one in container["volumeMounts"]}
    for name in ("LOG", "ARTIFACTS", "WORK"):
        assert environment[f"GPT4REC_LOOP_{name}"] in mounts


def test_alerts_name_metrics_that_exist_and_entries_of_the_runbook() -> None:
    registry = CollectorRegistry()
    LoopMetrics(registry)
    assert alerts("loop.yml", registry.collect())
