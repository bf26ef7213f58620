"""The images: linted, built in stages, not run as root, installed by hash from locks that fit, without torch.

They hold service/ alone, which therefore has to work without the other packages.
"""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy import locks
from service.settings.service_settings import DEFAULT_POLICIES, variable_names
from tests.support.deployment import lint, locked

ROOT = locks.REPOSITORY
FILES = {"cpu": ROOT / "deploy" / "Dockerfile", "gpu": ROOT / "deploy" / "Dockerfile.gpu"}
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
_TRAINING = {"torch", "onnx", "onnxscript", "polars", "scipy", "scikit-learn", "implicit"}


@pytest.mark.parametrize("name", FILES)
def test_the_dockerfile_has_no_faults_that_a_linter_finds(name: str) -> None:
    lint(FILES[name])


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


@pytest.mark.parametrize("name", FILES)
def test_the_image_is_built_from_service_alone(name: str) -> None:
    text = FILES[name].read_text(encoding="utf-8")
    copied = {source for line in re.findall(r"(?m)^COPY (?!--from)(.+)", text) for source in line.split()[:-1]}
    assert copied - {"service/policies/default.yaml"} == {f"deploy/requirements/{name}.txt", *locks.SOURCES}
    assert [source for source in locks.SOURCES if (ROOT / source).is_dir()] == ["service"]


def test_every_file_of_the_service_is_in_the_wheel() -> None:
    """setuptools adds the modules; every other file has to match the package data of its package."""
    patterns = PYPROJECT["tool"]["setuptools"]["package-data"]
    for file in (ROOT / "service").rglob("*.*"):
        if file.suffix not in (".py", ".pyc"):
            package = ".".join(file.relative_to(ROOT).parent.parts)
            assert any(file.match(pattern) for pattern in patterns.get(package, ())), file
    assert DEFAULT_POLICIES.is_relative_to(ROOT / "service")


def without_other_packages(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Runs code where service/ can be imported and the project's other packages cannot, as in the image."""
    (folder / "service").symlink_to(ROOT / "service", target_is_directory=True)
    # Without `site` no .pth file adds the project's folder to the path.
    path = [str(folder), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path += {path}\n{code}"]
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=folder)


def test_every_module_of_the_service_imports_without_the_other_packages(tmp_path: Path) -> None:
    code = """
import importlib, pkgutil, service
for module in pkgutil.walk_packages(service.__path__, "service."):
    importlib.import_module(module.name)
assert importlib.util.find_spec("service") and not importlib.util.find_spec("model")
loaded = {name.partition(".")[0] for name in sys.modules}
print(sorted(loaded & {"torch", "onnx", "polars", "model", "export", "deploy", "loadtests"}))
"""
    done = without_other_packages(tmp_path, code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("command", ["data", "train", "evaluate", "export", "demo"])
def test_a_command_that_the_image_lacks_ends_with_a_sentence(command: str, tmp_path: Path) -> None:
    code = f"sys.argv = ['gpt4rec', {command!r}]\nfrom service.cli.__main__ import main\nmain()"
    done = without_other_packages(tmp_path, code)
    assert done.returncode == 1
    assert done.stderr.startswith(f"gpt4rec: this installation holds the service alone, without the command {command}:")
    assert "gpt4rec[train]" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_document_states_the_size_of_each_installed_tree() -> None:
    text = locks.DOCUMENT.read_text(encoding="utf-8")
    for name, python in locks.IMAGES.items():
        size = re.search(rf"(?m)^\| {name} \| {re.escape(python)} \| (\d+) MiB \|$", text)
        assert size, name
        assert int(size[1]) > 0
