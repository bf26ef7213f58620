"""Builds the wheel of the Python client, and imports it from there: `python -m tests.support.client_wheel`."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from tests.support.deployment import DEPLOY

_USE = "import gpt4rec_client as c; print(c.__file__, c.__version__, len(c.__all__))"


def main() -> None:
    """Raises where the wheel cannot be built, lacks its types or holds anything else, or cannot be imported."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        source = folder / "source"
        # A build leaves files beside its source.
        shutil.copytree(
            DEPLOY / "clients" / "python", source, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
        )
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
        build = ["wheel", "--no-deps", "--wheel-dir", made, str(source)]
        subprocess.run([*pip, *build], check=True)
        (wheel,) = folder.glob("gpt4rec_client-*.whl")
        names = zipfile.ZipFile(wheel).namelist()
        assert "gpt4rec_client/py.typed" in names
        assert {name.split("/")[0].split("-")[0] for name in names} == {"gpt4rec_client"}
        subprocess.run(
            [*pip, "install", "--no-deps", "--no-index", "--target", str(folder / "site"), str(wheel)], check=True
        )
        used = subprocess.run(
            [sys.executable, "-c", _USE], check=True, capture_output=True, text=True,
            cwd=folder / "site", env={"PYTHONPATH": str(folder / "site")},
        ).stdout  # fmt: skip
        assert str(folder) in used, used
        print(f"{wheel.name}: {len(names)} files, {used.split()[1]}")  # noqa: T201


if __name__ == "__main__":
    main()
