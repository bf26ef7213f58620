"""What a command says on standard error when something went wrong: `gpt4rec: …`, the same in every command."""

from __future__ import annotations

import typer

from service.common.printable import printable

PROGRAM = "gpt4rec"


def complaint(message: object, program: str = PROGRAM) -> str:
    """Returns a message behind its prefix. Lines stay lines; what a terminal would obey is escaped.

    Args:
        message: An error, or its text.
        program: Name of the program.
    """
    return f"{program}: " + "\n".join(printable(line) for line in str(message).splitlines())


def complain(message: object) -> None:
    """Writes what went wrong to standard error."""
    typer.echo(complaint(message), err=True)
