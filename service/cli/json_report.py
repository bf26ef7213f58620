"""`--json`, which means the same in every command: the report as one JSON object on standard output.

Commands whose reports are kept take a FILE behind it: `evaluate … --json FILE` writes there instead.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from service.common.atomic_files import require_writable, write_aside

AsJson = Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")]
JsonFile = Annotated[
    Path | None,
    typer.Argument(metavar="[FILE]", help="With --json: file for the report instead of standard output."),
]
_STDOUT = "-"


def check_target(as_json: bool, file: Path | None) -> None:
    """Checks what was asked for before the work begins.

    Raises:
        BadParameter: There is a file without `--json`, or no folder to write it in.
        OSError: The file cannot be written.
    """
    if file is None:
        return
    if not as_json:
        raise typer.BadParameter(f"{str(file)!r} is no option; write --json {file} to keep the report there")
    if str(file) == _STDOUT:
        return
    if not file.parent.is_dir():
        raise typer.BadParameter(f"the folder {file.parent} does not exist; create it first", param_hint="--json")
    require_writable(file)


def to_stdout(as_json: bool, file: Path | None) -> bool:
    """Returns whether the report goes to standard output, so that nothing else may be printed there."""
    return as_json and (file is None or str(file) == _STDOUT)


def write_report(report: Any, as_json: bool, file: Path | None) -> None:
    """Writes a report as `--json` asks for: nowhere, to standard output, or to a file.

    Args:
        report: What JSON can hold.
        as_json: Whether `--json` was given.
        file: The file behind it.
    """
    if to_stdout(as_json, file):
        typer.echo(json.dumps(report, ensure_ascii=False))
    elif as_json and file is not None:
        write_aside(file, (json.dumps(report, indent=1, ensure_ascii=False) + "\n").encode())
