"""The command `gpt4rec`: loads only the subcommand that is run.

So the service runs without the training packages, and `gpt4rec --help` does not wait for them.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from importlib import metadata
from importlib.util import find_spec
from typing import Annotated, Any, NoReturn

import typer
from typer.main import get_command

from service.cli.outermost import ensure_utf8, fail, open_streams, sentences

GROUP = "gpt4rec.commands"

# Name: (one line for the list, extra that installs its packages).
COMMANDS = {
    "data": ("Import an event log into the project's format.", "train"),
    "train": ("Train a model on a data set.", "train"),
    "evaluate": ("Compare a model with item-CF and popularity on the whole catalogue.", "train"),
    "report": ("Report what served lists earned.", "train"),
    "ope": ("Estimate what other policies would have earned on logged traffic.", "train"),
    "export": ("Turn a trained model into an artefact to serve.", "train"),
    "order": ("Learn the order of lists from what was shown, and keep it if it earns more.", "train"),
    "gate": ("Compare a candidate with the model in service, and refuse it if it is worse.", "train"),
    "serve": ("Serve an artefact over HTTP.", "cpu"),
    "ingest": ("Read events from Kafka into the store of the service.", "kafka"),
    "ops": ("Inspect and control a running service.", "cpu"),
    "keys": ("Create API keys and tokens.", "cpu"),
    "loop": ("Carry what was shown, and what came of it, to the next model.", "train"),
    "demo": ("Run everything from public data to a served model, step by step.", "train"),
}
# Set by the shell when it asks what could follow the words typed so far.
_COMPLETION, _WORDS = "_GPT4REC_COMPLETE", ("_TYPER_COMPLETE_ARGS", "COMP_WORDS")
_OWN_PACKAGES = ("service", "model", "export", "deploy", "loadtests")


def main() -> None:
    """Runs a subcommand. Exits with 0, with 1 on failure, with 2 on bad usage."""
    open_streams()
    ensure_utf8()
    with sentences("gpt4rec"):
        if _COMPLETION in os.environ:
            _complete()
        run(sys.argv[1:])


def run(arguments: list[str]) -> None:
    """Runs a subcommand, without the outermost layer."""
    name = arguments[0] if arguments else ""
    if name not in COMMANDS:
        _overview()(args=arguments, prog_name="gpt4rec")
        return
    try:
        _load(name)(args=arguments[1:], prog_name=f"gpt4rec {name}")
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in _OWN_PACKAGES:
            raise
        _fail(f"{error.name} is not installed: pip install 'gpt4rec[{COMMANDS[name][1]}]'")


def _load(name: str) -> Callable[..., object]:
    entry = next((entry for entry in metadata.entry_points(group=GROUP) if entry.name == name), None)
    if entry is None:
        _fail(f"the command {name} is not installed: reinstall gpt4rec")
    if find_spec(entry.module.partition(".")[0]) is None:
        _fail(
            f"this installation holds the service alone, without the command {name}: install the complete "
            f"project, pip install 'gpt4rec[{COMMANDS[name][1]}]'"
        )
    return get_command(entry.load())


def _complete() -> None:
    """Answers the shell's completion. The subcommand is loaded only if its name has been typed."""
    overview: Any = _overview()
    typed = next(filter(None, map(os.environ.get, _WORDS)), "").split()[1:]
    if typed and typed[0] in COMMANDS:
        with contextlib.suppress(ModuleNotFoundError, SystemExit):  # its packages are not installed
            overview.commands[typed[0]] = _load(typed[0])
    overview(args=[], prog_name="gpt4rec")


def _fail(message: str) -> NoReturn:
    fail("gpt4rec", message)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(metadata.version("gpt4rec"))
        raise typer.Exit


def _overview() -> Callable[..., object]:
    """Returns the application behind `--help`. Its commands are only names; `main` runs the real ones."""
    app = typer.Typer(no_args_is_help=True)

    @app.callback()
    def gpt4rec(
        version: Annotated[
            bool,
            typer.Option("--version", is_eager=True, callback=_version, help="Show the version and exit."),
        ] = False,
    ) -> None:
        """A generative sequential recommender, from the event log to a service that always answers."""

    for name, (line, _) in COMMANDS.items():
        app.command(name, help=line)(lambda: None)
    return get_command(app)


if __name__ == "__main__":
    main()
