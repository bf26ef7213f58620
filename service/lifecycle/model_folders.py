"""Lists the model versions on this machine's disk.

These are the artefacts next to the configured one, or those inside the configured folder of artefacts. Only names and
manifests are read here; the files themselves are verified when a model is loaded.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service.artifact.manifest import MANIFEST, ArtifactFileError, read_manifest, repeats_of
from service.artifact.signature import KeyFileError, TrustedKeys
from service.process.disk_lane import DiskLane, HungFileError

_MODELS_MAX = 200


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """One model version on disk.

    Attributes:
        version: The version, as the manifest has it; the name of the folder where that cannot be read.
        path: The folder.
        stamp: Name, modification time in ns and size of every file, and of the file of trusted keys; changes when any
            of them does.
        created_at: When the manifest was written, ISO 8601, UTC.
        metrics: Quality figures from the manifest.
        repeats: Whether its lists hold items of the history where a request leaves `exclude_seen` out.
        fault: Why it cannot be served; None if nothing is known to be wrong.
    """

    version: str
    path: Path
    stamp: tuple[tuple[str, int, int], ...]
    created_at: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    repeats: bool = False
    fault: str | None = None

    def to_json(self, *, active: bool, refused: str | None = None) -> dict[str, Any]:
        """Returns the entry of the version in /ops/models.

        Args:
            active: Whether it is served.
            refused: Why it could not be loaded; None if it could, or was not tried.
        """
        fault = self.fault or refused
        return {
            "version": self.version, "created_at": self.created_at, "metrics": dict(self.metrics),
            "repeats": self.repeats, "active": active, "available": fault is None, "fault": fault,
        }  # fmt: skip


class ModelFolders:
    """Finds the model versions around the configured artefact.

    `artifact` is the configured path; None when the service was given an engine, and then there are no versions. `lane`
    is the way to its disk. `keys` is the file of the keys one of which must have signed a version; None asks for none.
    """

    def __init__(self, artifact: Path | None, lane: DiskLane, keys: Path | None = None) -> None:
        self._lane, self._keys = lane, keys
        self._known: Mapping[str, ModelFolder] = {}
        self._root: Path | None = None
        if artifact is not None:
            artifact = artifact.absolute()
            self._root = artifact.parent if (artifact / MANIFEST).is_file() else artifact

    async def list(self) -> Mapping[str, ModelFolder]:
        """Returns the folders by version, sorted. Raises HungFileError if the disk does not answer."""
        self._known = await self._lane.run(self.listed)
        return self._known

    async def list_or_known(self) -> Mapping[str, ModelFolder]:
        """Does the same, but returns what was found before if the disk does not answer."""
        with contextlib.suppress(HungFileError):
            await self.list()
        return self._known

    def listed(self) -> dict[str, ModelFolder]:
        """Reads the disk: not for the event loop. Otherwise as `list`."""
        by_version: dict[str, ModelFolder] = {}
        trust = _Trust.of(self._keys)
        for path in self._folders():
            folder = _read(path, trust)
            # Two folders with one version: the one named after it counts, the other may be a link or a copy.
            if folder.version not in by_version or path.name == folder.version:
                by_version[folder.version] = folder
        return dict(sorted(by_version.items()))

    def _folders(self) -> Iterator[Path]:
        """Folders with a manifest. A name that begins with a dot is being written or removed."""
        if self._root is None:
            return
        try:
            names = sorted(entry.name for entry in os.scandir(self._root) if not entry.name.startswith("."))
        except OSError:
            return
        left = _MODELS_MAX
        for name in names:
            if left and (self._root / name / MANIFEST).is_file():
                left -= 1
                yield self._root / name


@dataclass(frozen=True, slots=True)
class _Trust:
    """What is asked of signatures.

    Attributes:
        keys: One of them must have signed a version; None asks for none.
        fault: Why no version can be served at present, since the file of the keys cannot be used.
        stamp: Name, modification time in ns and size of that file.
    """

    keys: TrustedKeys | None = None
    fault: str | None = None
    stamp: tuple[tuple[str, int, int], ...] = ()

    @classmethod
    def of(cls, file: Path | None) -> _Trust:
        if file is None:
            return cls()
        try:
            stat = file.stat()
            return cls(TrustedKeys.read(file), stamp=((str(file), stat.st_mtime_ns, stat.st_size),))
        except (OSError, KeyFileError) as error:
            return cls(fault=f"its signature cannot be verified: {error}")


def _read(path: Path, trust: _Trust) -> ModelFolder:
    stamp: tuple[tuple[str, int, int], ...] = ()
    try:
        entries = ((entry.name, entry.stat()) for entry in os.scandir(path))
        stamp = (*sorted((name, stat.st_mtime_ns, stat.st_size) for name, stat in entries), *trust.stamp)
        manifest = read_manifest(path)
        if trust.keys is not None:
            trust.keys.verify(path, manifest)
    except (ArtifactFileError, KeyFileError) as error:
        return ModelFolder(path.name, path, stamp, fault=without_path(error, path))
    except OSError as error:
        return ModelFolder(path.name, path, stamp, fault=f"cannot be read: {error.strerror}")
    written = next((mtime_ns for name, mtime_ns, _ in stamp if name == MANIFEST), 0)
    created_at = datetime.fromtimestamp(written / 1e9, UTC).isoformat(timespec="seconds")
    return ModelFolder(
        str(manifest["model_version"]),
        path,
        stamp,
        created_at,
        _metrics(manifest),
        repeats_of(manifest),
        trust.fault,
    )


def without_path(error: Exception, path: Path) -> str:
    """Returns the message of an error without the path, because callers need not know this machine's disk."""
    return str(error).replace(f"{path}: ", "").replace(str(path), path.name)


def _metrics(manifest: Mapping[str, Any]) -> dict[str, float]:
    """Returns the quality figures in the manifest, such as `recall@10`; empty if there are none."""
    try:
        figures = manifest["metrics"]["systems"]["gpt4rec"]
        return {
            str(name): float(value)
            for name, value in figures.items()
            if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        }
    except (KeyError, TypeError, AttributeError):
        return {}
