"""Adds an order model to an artefact: another artefact of the same files, with a version of its own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from export.publish import publish, seal, staging
from export.signing import Sign
from service.artifact.artifact import Artifact
from service.artifact.scorers.order_weights import ORDER_FILE, OrderWeights

# The entry of the manifest that says where an order model comes from.
ENTRY = "order"
_SEALED = ("format", "format_version", "model_version", "files", ENTRY)


def versions_of(artifact: Artifact) -> tuple[str, ...]:
    """Returns the versions whose scores are those of an artefact: its own, and that of the same without an order."""
    before = (artifact.manifest.get(ENTRY) or {}).get("of")
    return (artifact.model_version, *([str(before)] if before else []))


def with_order(
    artifact: Artifact,
    weights: OrderWeights,
    root: Path,
    about: Mapping[str, Any],
    *,
    latest: bool = False,
    sign: Sign | None = None,
) -> Path:
    """Publishes an artefact with an order model.

    Args:
        artifact: The artefact; it stays as it is.
        weights: The order model.
        root: Folder of artefacts.
        about: What the manifest says of it: what it was learned from, and what it is expected to earn.
        latest: Whether to point `latest` at the new artefact although it names another one.
        sign: Signs the new artefact; None leaves it unsigned.

    Returns:
        The folder of the new artefact.

    Raises:
        ValueError: The order model is of another catalogue.
    """
    if weights.n_items != artifact.catalogue.n_exported:
        raise ValueError(f"an order of {weights.n_items} items for a catalogue of {artifact.catalogue.n_exported}")
    base = versions_of(artifact)[-1]
    with staging(root) as folder:
        for name in artifact.manifest["files"]:
            if name != ORDER_FILE:
                _link(artifact.folder / name, folder / name)
        weights.save(folder / ORDER_FILE)
        kept = {name: value for name, value in artifact.manifest.items() if name not in _SEALED}
        seal(folder, {**kept, ENTRY: {"of": base, **about}}, base.rpartition("-")[0])
        return publish(folder, root, latest=latest, sign=sign)


def _link(file: Path, copy: Path) -> None:
    """The same file under another name; a copy where the folders are on different file systems."""
    try:
        os.link(file, copy)
    except OSError:
        shutil.copyfile(file, copy)
