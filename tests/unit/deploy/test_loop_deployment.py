"""What deploys `gpt4rec loop run`: image, compose profile, kustomize component and alerts name what exists."""

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
from packaging.utils import canonicalize_name
from prometheus_client import CollectorRegistry

from service.common.loop_metrics import LoopMetrics
from service.common.settings import variable_names

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "deploy"
COMPONENT = DEPLOY / "kubernetes" / "components" / "loop"
FILES = ("loop.yaml", "loop-network-policy.yaml", "service-network-policy.yaml")


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


POD: dict[str, Any] = read(COMPONENT / "loop.yaml")["spec"]["template"]["spec"]
LOOP: dict[str, Any] = read(ROOT / "docker-compose.yml")["services"]["loop"]


def test_the_image_has_no_faults_that_a_linter_finds_and_locked_packages_that_the_project_allows() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or "hadolint"
    done = subprocess.run([hadolint, str(DEPLOY / "Dockerfile.loop")], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    text = (DEPLOY / "requirements" / "loop.txt").read_text(encoding="utf-8")
    locked = {canonicalize_name(n): v for n, v in re.findall(r"(?m)^([\w.-]+)(?:\[[^]]*\])?==(\S+)", text)}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    for wanted in map(Requirement, (*project["dependencies"], *extras["cpu"], *extras["train"], *extras["loop"])):
        if wanted.marker is None or wanted.marker.evaluate({"python_version": "3.11"}):
            assert wanted.specifier.contains(locked[canonicalize_name(wanted.name)]), wanted.name


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
    known = {one.name + ("_total" if one.type == "counter" else "") for one in registry.collect()}
    headings = re.findall(r"(?m)^## (.+)$", (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8"))
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    for rule in read(DEPLOY / "prometheus" / "loop.yml")["groups"][0]["rules"]:
        assert set(re.findall(r"gpt4rec_\w+", rule["expr"])) <= known, rule["alert"]
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert (page, anchor in anchors) == ("docs/runbook.md", True), rule["alert"]
