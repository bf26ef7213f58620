"""Opens the engine that an artefact needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from service.artifact.artifact import Artifact
from service.artifact.manifest import ArtifactFileError
from service.common.errors import ArtifactError
from service.engine.baseline_engine import BaselineEngine
from service.engine.engine import Engine


def open_engine(path: Path | str, **placement: Any) -> Engine | BaselineEngine:
    """Opens the engine of an artefact: a model, or a baseline.

    Args:
        path: The artefact's folder.
        placement: As for `service.engine.engine.Engine`; a baseline needs `filter_bytes_max` alone.

    Raises:
        ArtifactError: The artefact is damaged or does not fit.
        StartupError: The device cannot be used.
    """
    try:
        artifact = Artifact.open(path)
    except ArtifactFileError as error:
        raise ArtifactError(str(error)) from error
    if artifact.baseline is None:
        return Engine(artifact, **placement)
    own = {name: value for name, value in placement.items() if name == "filter_bytes_max"}
    return BaselineEngine(artifact, **own)
