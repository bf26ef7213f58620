"""`gpt4rec keys`: creates API keys and tokens. The service keeps only their digests."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from service.access import keys
from service.cli.json_report import AsJson

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Create API keys and tokens.")

Name = Annotated[str, typer.Argument(help="The name of its owner; shown in the audit and in the log.")]
Users = Annotated[bool, typer.Option("--users", help="Allow the API key to read and erase users.")]
Items = Annotated[bool, typer.Option("--items", help="Allow the API key to change items.")]


@app.command()
def new(name: Name, users: Users = False, items: Items = False, as_json: AsJson = False) -> None:
    """Creates a secret of 256 random bits, and shows it once, with the entry for the service.

    The entry goes into GPT4REC_API_KEYS, GPT4REC_OPS_TOKENS or GPT4REC_METRICS_TOKENS, or better, into the file that
    the variable with the suffix _FILE names: the service follows changes of the file. The entry contains no secret.
    """
    secret = keys.new_secret()
    _show(name, secret, (users, items), as_json, shown=True)


@app.command("hash")
def hash_(name: Name, users: Users = False, items: Items = False, as_json: AsJson = False) -> None:
    """Creates the entry of an existing secret, which is read from the standard input."""
    secret = sys.stdin.readline().strip()
    if not secret:
        raise typer.BadParameter("the standard input contains no secret")
    _show(name, secret, (users, items), as_json, shown=False)


def _show(name: str, secret: str, rights: tuple[bool, bool], as_json: bool, *, shown: bool) -> None:
    try:
        entry = keys.entry(name, secret, users=rights[0], items=rights[1])
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if as_json:
        typer.echo(json.dumps({"name": name, **({"secret": secret} if shown else {}), "entry": entry}))
    elif shown:
        typer.echo(f"secret  {secret}")
        typer.echo(f"entry   {entry}")
        typer.echo("The secret is not shown again: give it to the caller. The entry is for the service.", err=True)
    else:
        typer.echo(entry)
