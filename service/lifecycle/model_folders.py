"""The model versions on this machine's disk: the artefacts beside the one that is configured, or inside the folder of
artefacts that is. Only read, and only at a glance: what is in the files is verified when one is to be served.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service.artifact.artifact import MANIFEST, ArtifactFileError, glance

_MODELS_MAX = 200


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """One version. `stamp` changes with any of its files; `fault` is None where it looks as if it could be served."""

    version: str
    path: Path
    stamp: tuple[tuple[str, int, int], ...]
    created_at: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    fault: str | None = None


class ModelFolders:
    """`artifact` as the setting names it; None where a model was handed over instead, and no others are known."""

    def __init__(self, artifact: Path | None) -> None:
        self._root: Path | None = None
        if artifact is not None:
            artifact = artifact.absolute()
            self._root = artifact.parent if (artifact / MANIFEST).is_file() else artifact

    def listed(self) -> dict[str, ModelFolder]:
        """By version, in order of their names. Reads the disk: not for the event loop."""
        found: dict[str, ModelFolder] = {}
        for path in self._folders():
            folder = _read(path)
            # A folder of its version's own name is the version; another one may be a link or a copy of it.
            if folder.version not in found or path.name == folder.version:
                found[folder.version] = folder
        return dict(sorted(found.items()))

    def _folders(self) -> Iterator[Path]:
        """Folders with a manifest; what begins with a dot is being written, or taken away."""
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


def _read(path: Path) -> ModelFolder:
    stamp: tuple[tuple[str, int, int], ...] = ()
    try:
        entries = ((entry.name, entry.stat()) for entry in os.scandir(path))
        stamp = tuple(sorted((name, stat.st_mtime_ns, stat.st_size) for name, stat in entries))
        manifest = glance(path)
    except ArtifactFileError as error:
        return ModelFolder(path.name, path, stamp, fault=said(error, path))
    except OSError as error:
        return ModelFolder(path.name, path, stamp, fault=f"cannot be read: {error.strerror}")
    written = next((mtime_ns for name, mtime_ns, _ in stamp if name == MANIFEST), 0)
    created_at = datetime.fromtimestamp(written / 1e9, UTC).isoformat(timespec="seconds")
    return ModelFolder(str(manifest["model_version"]), path, stamp, created_at, _metrics(manifest))


def said(error: Exception, path: Path) -> str:
    """The message without the path, which is this machine's business."""
    return str(error).replace(f"{path}: ", "").replace(str(path), path.name)


def _metrics(manifest: Mapping[str, Any]) -> dict[str, float]:
    """What the evaluation before the export said of the model, e.g. `recall@10`; empty where it said nothing."""
    try:
        figures = manifest["metrics"]["systems"]["gpt4rec"]
        return {
            str(name): float(value)
            for name, value in figures.items()
            if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        }
    except (KeyError, TypeError, AttributeError):
        return {}
