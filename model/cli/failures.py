"""What the commands of `model/` say where something cannot be used."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import typer

from service.cli.messages import complain


@contextlib.contextmanager
def failures() -> Iterator[None]:
    """Turns errors that a user can fix into a message without a traceback.

    Raises:
        typer.Exit: Code 2 for a configuration that cannot be used, else code 1.
    """
    try:
        from model.data.errors import DataError
        from model.errors import ConfigError, RunError
        from service.artifact.manifest import ArtifactFileError
        from service.artifact.signature import KeyFileError
        from service.common.errors import ServiceError
    except ModuleNotFoundError as error:
        complain(f"{error.name} is not installed: pip install 'gpt4rec[train,cpu]'")
        raise typer.Exit(1) from error
    try:
        yield
    except (ConfigError, DataError, RunError, ArtifactFileError, KeyFileError, ServiceError) as error:
        complain(error)
        raise typer.Exit(2 if isinstance(error, ConfigError) else 1) from error
