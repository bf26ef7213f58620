"""Opens the engine that an artefact asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from service.artifact.artifact import Artifact, ArtifactFileError
from service.common.errors import ArtifactError
from service.engine.baseline_engine import BaselineEngine
from service.engine.engine import Engine


def open_engine(path: Path | str, **placement: Any) -> Engine | BaselineEngine:
    """The engine that the artefact at `path` asks for; `placement` as for `service.engine.engine.Engine`.

    Raises ArtifactError for an artefact that is damaged or does not fit, StartupError where the device cannot be used.
    """
    try:
        artifact = Artifact.open(path)
    except ArtifactFileError as error:
        raise ArtifactError(str(error)) from error
    return Engine(artifact, **placement) if artifact.baseline is None else BaselineEngine(artifact)
