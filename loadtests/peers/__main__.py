"""Environments of the peers: `python -m loadtests.peers install [NAME …]` and `python -m loadtests.peers list`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from loadtests.peers import environments
from service.cli.outermost import run_command

app = typer.Typer(add_completion=False, no_args_is_help=True)
console = Console()


@app.command()
def install(
    names: Annotated[list[str] | None, typer.Argument(help="Environments to create; all by default.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Recreate those that are up to date, too.")] = False,
) -> None:
    """Creates the environments of the peers under `.peers/`."""
    for name in names or environments.names():
        if environments.is_current(name) and not again:
            console.print(f"{name}: up to date")
            continue
        try:
            with console.status(f"{name}: installing"):
                environments.install(name)
        except environments.PeerError as error:
            console.print(str(error), style="red", markup=False)
            raise typer.Exit(1) from None
        console.print(f"{name}: installed")


@app.command("list")
def list_() -> None:
    """Lists the environments and whether they are ready."""
    for name in environments.names():
        console.print(f"{name}: {'ready' if environments.is_current(name) else 'not installed'}")


if __name__ == "__main__":
    run_command(app)
