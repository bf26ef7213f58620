"""Environments of the peers: one virtual environment each, from a file of pinned requirements.

The repository itself is not installed in them; PYTHONPATH leads to its modules (`environment`), so that a peer
runs the engine of this working tree without the service's other dependencies.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".peers"
REQUIREMENTS = Path(__file__).resolve().parent / "requirements"
INSTALL_TIMEOUT_S = 1800.0
_STAMP = "requirements.sha256"


class PeerError(RuntimeError):
    """Raised if a peer cannot be installed or started; the message says what to do."""


def names() -> list[str]:
    """Returns the names of all environments."""
    return sorted(file.stem for file in REQUIREMENTS.glob("*.txt"))


def python(name: str) -> Path:
    """Returns the interpreter of an environment.

    Raises:
        PeerError: If it is missing, or was created from other requirements.
    """
    interpreter = FOLDER / name / "bin" / "python"
    if not is_current(name):
        raise PeerError(
            f"the environment of {name} is missing or out of date: run `python -m loadtests.peers install {name}`"
        )
    return interpreter


def is_current(name: str) -> bool:
    """Returns whether an environment was created from the current requirements."""
    stamp = FOLDER / name / _STAMP
    return stamp.is_file() and stamp.read_text("utf-8") == _digest(name)


def install(name: str) -> None:
    """Recreates the environment.

    Raises:
        PeerError: If pip fails; the message holds the end of its output.
    """
    if name not in names():
        raise PeerError(f"no peer is named {name!r}; the peers are {', '.join(names())}")
    folder = FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    interpreter = folder / "bin" / "python"
    for command in (
        [sys.executable, "-m", "venv", str(folder)],
        [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(_file(name))],
    ):
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False)  # noqa: S603
        except (OSError, subprocess.TimeoutExpired) as error:
            raise PeerError(f"{name}: {error}") from error
        if done.returncode:
            raise PeerError(f"{name}: {' '.join(command)} failed:\n{(done.stderr or done.stdout)[-2000:]}")
    (folder / _STAMP).write_text(_digest(name), "utf-8")


def installed_versions(name: str) -> dict[str, str]:
    """Returns the versions of the packages in the environment's requirements."""
    wanted = [line.split("==")[0] for line in _file(name).read_text("utf-8").split()]
    code = f"from importlib.metadata import version; print(*(version(p) for p in {wanted!r}))"
    done = subprocess.run([str(python(name)), "-c", code], capture_output=True, text=True, timeout=60, check=True)  # noqa: S603
    return dict(zip(wanted, done.stdout.split(), strict=True))


def environment(**more: str) -> dict[str, str]:
    """Returns environment variables of a peer: this working tree on the path, no thread pools beside the engine's."""
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "OMP_NUM_THREADS": "1",
        **more,
    }


def _file(name: str) -> Path:
    return REQUIREMENTS / f"{name}.txt"


def _digest(name: str) -> str:
    return hashlib.sha256(_file(name).read_bytes()).hexdigest()
