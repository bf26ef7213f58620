"""`gpt4rec sign`: makes keys, signs artefacts, and says who signed one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from service.artifact.manifest import ArtifactFileError
from service.artifact.signature import KeyFileError
from service.cli.messages import complain

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Sign artefacts, so that services can refuse others."
)

Folder = Annotated[Path, typer.Argument(help="Artefact, or a folder of artefacts whose `latest` names one.")]


@app.command()
def key(
    name: Annotated[str, typer.Argument(help="Name of the key, as refusals and lists of keys show it.")],
    out: Annotated[Path, typer.Option(help="File of the private key; it must not exist.")],
) -> None:
    """Makes a key. The private part goes into a file, the public one is printed.

    The printed line goes into the file that GPT4REC_ARTIFACT_KEYS names. It contains no secret.
    """
    from export.signing import new_key

    with _sentences():
        typer.echo(new_key(name, out))


@app.command()
def artifact(folder: Folder, key_file: Annotated[Path, typer.Option("--key", help="File of the private key.")]) -> None:
    """Verifies an artefact's checksums and signs it. Signatures of other keys stay."""
    from export.signing import SigningKey
    from service.artifact.artifact import Artifact

    with _sentences():
        signing, opened = SigningKey.read(key_file), Artifact.open(folder)
        signing.sign(opened.folder)
        typer.echo(f"signed {opened.folder}")


@app.command()
def verify(
    folder: Folder, keys: Annotated[Path, typer.Option(help="File of trusted public keys (GPT4REC_ARTIFACT_KEYS).")]
) -> None:
    """Verifies an artefact as a service with these keys would, and prints the name of the key that signed it."""
    from service.artifact.artifact import Artifact
    from service.artifact.signature import TrustedKeys

    with _sentences():
        trusted = TrustedKeys.read(keys)
        opened = Artifact.open(folder, trusted=trusted)
        typer.echo(trusted.verify(opened.folder, opened.manifest))


@contextmanager
def _sentences() -> Iterator[None]:
    """Ends with status 1 and a sentence where a key or an artefact cannot be used."""
    try:
        yield
    except (KeyFileError, ArtifactFileError) as error:
        complain(error)
        raise typer.Exit(1) from error
