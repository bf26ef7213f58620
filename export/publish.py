"""Publishes an artefact: fills a temporary folder, seals it and renames it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from export.signing import Sign
from service.artifact.artifact import Artifact
from service.artifact.graphs.run_sizes import ENTRY as RUN_SIZES
from service.artifact.graphs.run_sizes import RunSizes
from service.artifact.manifest import (
    CONTENT,
    FORMAT,
    FORMAT_VERSION,
    LATEST,
    MANIFEST,
    OPTIONAL,
    ArtifactFileError,
    digest,
    repeats_of,
    required_files,
)
from service.common.atomic_files import naming, write_aside


@contextmanager
def staging(root: Path) -> Iterator[Path]:
    """Yields a temporary folder beside the artefacts, which is removed at the end unless `publish` has renamed it."""
    with naming(root):
        root.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".staging-", dir=root))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def seal(folder: Path, manifest: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Writes the manifest with the checksum of every file.

    Args:
        folder: The artefact's folder, with all its files.
        manifest: Entries of the manifest.
        name: The first part of the model version, which a digest of everything served completes.

    Returns:
        The complete manifest.
    """
    names = (*required_files(manifest), *(f for f in OPTIONAL if (folder / f).exists()))
    files = {f: {"sha256": digest(folder / f), "bytes": (folder / f).stat().st_size} for f in names}
    served = [files, *(manifest[name] for name in CONTENT), *filter(None, [manifest.get("baseline")])]
    if repeats_of(manifest):
        served.append("repeats")
    if (sizes := RunSizes.from_json(manifest.get(RUN_SIZES))) != RunSizes():
        served.append(sizes.to_json())
    content = hashlib.sha256(json.dumps(served, sort_keys=True).encode()).hexdigest()
    full = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "model_version": f"{name}-{content[:10]}",
        **manifest,
        "files": files,
    }
    (folder / MANIFEST).write_text(json.dumps(full, indent=1, ensure_ascii=False), "utf-8")
    return full


def publish(folder: Path, root: Path, *, latest: bool = False, sign: Sign | None = None) -> Path:
    """Renames a sealed folder to its version under `root`.

    If the same content is published already, nothing is renamed, unless that folder is damaged: then it is replaced.
    A service that is started on `root` serves what `latest` names, so that is changed only on request; the first
    artefact of a root gets it.

    Args:
        folder: The sealed folder.
        root: Folder of artefacts.
        latest: Whether to point `latest` at the artefact although it names another one.
        sign: Signs it before anybody can see it; None leaves it unsigned.

    Returns:
        The published folder.
    """
    version = str(json.loads((folder / MANIFEST).read_text("utf-8"))["model_version"])
    target = root / version
    if sign is not None:
        sign(folder)
    if not _is_intact(target):
        folder.chmod(0o755)
        _replace(target, folder)
    elif sign is not None:
        sign(target)
    if latest or not (root / LATEST).exists():
        write_aside(root / LATEST, f"{version}\n".encode())
    return target


def _is_intact(target: Path) -> bool:
    try:
        Artifact.open(target)
    except ArtifactFileError:
        return False
    return True


def _replace(target: Path, new: Path) -> None:
    """Renames `new` to `target` and removes what was there."""
    with tempfile.TemporaryDirectory(prefix=".damaged-", dir=target.parent) as aside:
        with contextlib.suppress(FileNotFoundError):
            target.rename(Path(aside) / target.name)
        try:
            new.rename(target)
        except OSError:
            if not _is_intact(target):  # otherwise another process has published the same content in the meantime
                raise
