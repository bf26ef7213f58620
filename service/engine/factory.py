"""Opens the engine that an artefact needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from service.artifact.artifact import Artifact
from service.artifact.manifest import ArtifactFileError
from service.artifact.signature import KeyFileError, TrustedKeys
from service.common.errors import ArtifactError
from service.engine.baseline_engine import BaselineEngine
from service.engine.engine import Engine


def open_again(artifact: Artifact, **placement: Any) -> Engine:
    """Opens the engine of an artefact that is in use once more, after verifying every checksum again.

    Args:
        artifact: The artefact; the engine shares its parts.
        placement: As for `service.engine.engine.Engine`.

    Raises:
        ArtifactError: Its folder is gone, is damaged, or holds another artefact by now.
        StartupError: The device cannot be used.
    """
    try:
        now = Artifact.open(artifact.folder)
    except ArtifactFileError as error:
        raise ArtifactError(str(error)) from error
    if now.manifest != artifact.manifest:
        raise ArtifactError(f"{artifact.folder} holds another artefact than the one in service; activate that one")
    return Engine(artifact, **placement)


def open_engine(path: Path | str, *, trusted: TrustedKeys | None = None, **placement: Any) -> Engine | BaselineEngine:
    """Opens the engine of an artefact: a model, or a baseline.

    Args:
        path: The artefact's folder.
        trusted: Keys one of which must have signed it; None asks for no signature.
        placement: As for `service.engine.engine.Engine`; a baseline needs `filter_bytes_max` alone.

    Raises:
        ArtifactError: The artefact is damaged, does not fit, or is not signed as it should be.
        StartupError: The device cannot be used.
    """
    try:
        artifact = Artifact.open(path, trusted=trusted)
    except (ArtifactFileError, KeyFileError) as error:
        raise ArtifactError(str(error)) from error
    if artifact.baseline is None:
        return Engine(artifact, **placement)
    own = {name: value for name, value in placement.items() if name == "filter_bytes_max"}
    return BaselineEngine(artifact, **own)
