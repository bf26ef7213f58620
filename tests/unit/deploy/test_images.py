"""The images: linted, in stages, not run by root, installed by hash from locks that fit the project, without torch."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy import locks
from service.common.settings import variable_names

ROOT = locks.REPOSITORY
FILES = {"cpu": ROOT / "deploy" / "Dockerfile", "gpu": ROOT / "deploy" / "Dockerfile.gpu"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
_TRAINING = {"torch", "onnx", "onnxscript", "polars", "scipy", "scikit-learn", "implicit"}


def locked(name: str) -> dict[str, str]:
    """Package → version."""
    text = (locks.LOCKS / f"{name}.txt").read_text(encoding="utf-8")
    return {canonicalize_name(n): v for n, v in re.findall(r"(?m)^([\w.-]+)(?:\[[^]]*\])?==(\S+)", text)}


@pytest.mark.parametrize("name", FILES)
def test_the_dockerfile_has_no_faults_that_a_linter_finds(name: str) -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or "hadolint"
    done = subprocess.run([hadolint, str(FILES[name])], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", FILES)
def test_the_image_is_built_in_stages_pinned_and_not_run_by_root(name: str) -> None:
    text = FILES[name].read_text(encoding="utf-8")
    stages = re.findall(r"(?m)^FROM (\S+)(?: AS (\S+))?", text)
    assert len(stages) >= 2
    named = {alias for _, alias in stages}
    assert all(base in named or re.search(r":\d[\w.-]*$", base) for base, _ in stages)
    last = text[text.rindex("\nFROM ") :]
    assert "USER 10001" in last
    assert "HEALTHCHECK" in last
    assert "pip install" not in last
    assert 'ENTRYPOINT ["gpt4rec", "serve"]' in last
    assert set(re.findall(r"GPT4REC_\w+", last)) <= set(variable_names())


@pytest.mark.parametrize("name", FILES)
def test_packages_are_installed_by_version_and_hash(name: str) -> None:
    text = FILES[name].read_text(encoding="utf-8")
    assert f"COPY deploy/requirements/{name}.txt" in text
    assert "--require-hashes" in text
    lock = (locks.LOCKS / f"{name}.txt").read_text(encoding="utf-8")
    entries = re.split(r"(?m)^(?=\w)", lock)[1:]
    assert len(entries) == len(locked(name)) > 20
    assert all("--hash=sha256:" in entry for entry in entries)


@pytest.mark.parametrize("name", FILES)
def test_the_lock_fits_the_project_and_holds_nothing_of_training(name: str) -> None:
    found = locked(name)
    needed = [Requirement(one) for one in (*PROJECT["dependencies"], *PROJECT["optional-dependencies"][name])]
    for one in needed:
        version = found.get(canonicalize_name(one.name))
        assert version is not None, f"{one.name} is not locked: run python -m deploy.locks"
        assert one.specifier.contains(version), f"{one.name} {version}: run python -m deploy.locks"
    assert not found.keys() & _TRAINING
    assert ("onnxruntime-gpu" in found) == (name == "gpu")


@pytest.mark.parametrize("name", FILES)
def test_what_the_build_copies_is_not_ignored(name: str) -> None:
    text = FILES[name].read_text(encoding="utf-8")
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    for line in re.findall(r"(?m)^COPY (?!--from)(.+)", text):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert source.split("/")[0] not in ignored


def test_the_document_states_the_size_of_each_installed_tree() -> None:
    text = locks.DOCUMENT.read_text(encoding="utf-8")
    for name, python in locks.IMAGES.items():
        size = re.search(rf"(?m)^\| {name} \| {re.escape(python)} \| (\d+) MiB \|$", text)
        assert size, name
        assert int(size[1]) > 0
