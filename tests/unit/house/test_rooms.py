"""Who may import whom: the contracts hold, and each of them refuses what it forbids."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ("service", "model", "export", "deploy", "loadtests")
CONTRACTS = [
    contract["name"]
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
]
# For each contract, a module and an import that must not be in it.
FORBIDDEN = {
    "The house": [("service/common/deadline.py", "import model.errors"), ("model/errors.py", "import export.publish"),
                  ("export/publish.py", "import deploy.locks")],
    "The rooms of service/": [("service/artifact/trie.py", "import service.store.records"),
                              ("service/history/history.py", "import service.recommend.recommender"),
                              ("service/engine/decoding.py", "import service.batching.run_costs"),
                              ("service/signals/ranker.py", "import service.engine.decoding")],
    "The rooms of model/": [("model/data/dataset.py", "import model.network.config")],
    "The rooms of loadtests/": [("loadtests/common/report.py", "import loadtests.load.items")],
    "No circles": [("export/graphs/decoder_network.py", "import export.graphs.decoder")],
}  # fmt: skip


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the code alone, which a test may spoil."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=lambda folder, names: {
            name for name in names if not ((Path(folder) / name).is_dir() or name.endswith(".py"))
        } | ({"__pycache__"} & set(names)))  # fmt: skip
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint(folder: Path) -> tuple[int, dict[str, str], str]:
    """Returns the exit code, `KEPT` or `BROKEN` for each contract, and all that was printed."""
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([program, "--no-cache"], cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    verdicts = dict(re.findall(r"(?m)^(.+?) (KEPT|BROKEN)", done.stdout))
    return done.returncode, verdicts, done.stdout + done.stderr


def test_every_contract_is_kept() -> None:
    code, verdicts, said = lint(ROOT)
    assert code == 0, said
    assert verdicts == dict.fromkeys(CONTRACTS, "KEPT")


def test_a_forbidden_import_is_refused_by_its_contract(copy: Path) -> None:
    for lines in FORBIDDEN.values():
        for file, line in lines:
            path = copy / file
            path.write_text(path.read_text("utf-8") + f"\n\n{line}\n", "utf-8")
    code, verdicts, said = lint(copy)
    assert code == 1, said
    assert verdicts == dict.fromkeys(CONTRACTS, "BROKEN"), said
    for lines in FORBIDDEN.values():
        for file, line in lines:
            importer, imported = file.removesuffix(".py").replace("/", "."), line.removeprefix("import ")
            named = f"{importer} -> {imported}" in said or f"{importer.rsplit('.')[-1]} -> " in said
            assert named, f"{importer} imports {imported}, and nothing says so:\n{said}"


def test_every_room_says_what_it_is_for() -> None:
    rooms = [path for package in PACKAGES for path in (ROOT / package).rglob("__init__.py")]
    assert len(rooms) > 40
    for path in rooms:
        text = path.read_text("utf-8")
        assert re.match(r'"""[A-Z`/].+\."*', text), f"{path.relative_to(ROOT)} says nothing"


def test_every_folder_of_modules_is_a_room() -> None:
    folders = {path.parent for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    assert not [str(folder.relative_to(ROOT)) for folder in folders if not (folder / "__init__.py").is_file()]


def test_unit_tests_mirror_the_rooms() -> None:
    unit = ROOT / "tests" / "unit"
    tests = [path.relative_to(unit).parent for path in unit.rglob("test_*.py") if "house" not in path.parts]
    assert tests
    assert not [str(folder) for folder in set(tests) if not (ROOT / folder / "__init__.py").is_file()]


def test_test_modules_have_different_names() -> None:
    """pytest imports test modules by their file name alone."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
