"""What the tests of images, components and alerts share."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from packaging.utils import canonicalize_name
from prometheus_client import Metric

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"


def read(path: Path) -> Any:
    """The content of a YAML file."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def locked(name: str) -> dict[str, str]:
    """Version of each package in a file of `deploy/requirements`."""
    text = (DEPLOY / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    return {canonicalize_name(n): v for n, v in re.findall(r"(?m)^([\w.-]+)(?:\[[^]]*\])?==(\S+)", text)}


def lint(dockerfile: Path) -> None:
    """Asserts that a linter finds nothing in a Dockerfile."""
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or "hadolint"
    done = subprocess.run([hadolint, str(dockerfile)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def alerts(file: str, families: Iterable[Metric]) -> list[dict[str, Any]]:
    """The alerts of a file of `deploy/prometheus`, whose metrics are among the families, and whose entries exist."""
    suffixes = {"counter": "_total", "histogram": "_count"}
    known = {one.name + suffixes.get(one.type, "") for one in families}
    headings = re.findall(r"(?m)^## (.+)$", (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8"))
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    rules: list[dict[str, Any]] = read(DEPLOY / "prometheus" / file)["groups"][0]["rules"]
    for rule in rules:
        assert set(re.findall(r"gpt4rec_\w+", rule["expr"])) <= known, rule["alert"]
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert (page, anchor in anchors) == ("docs/runbook.md", True), rule["alert"]
    return rules
