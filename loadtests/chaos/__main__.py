"""Tries every fault in turn, into loadtests/results/faults.json: `python -m loadtests.chaos all --artifact DIR`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from loadtests.chaos import clients, clocks, filters, host, model, process, redis, redis_roles
from loadtests.chaos.scene import Fault, Scene
from loadtests.common import results
from loadtests.harness.served_process import NotReadyError
from loadtests.load.open_loop_driver import LoadError
from service.cli.outermost import run_command

FAULTS: Sequence[Fault] = (
    *redis.FAULTS,
    *redis_roles.FAULTS,
    *model.FAULTS,
    *process.FAULTS,
    *host.FAULTS,
    *clients.FAULTS,
    *filters.FAULTS,
    *clocks.FAULTS,
)
NAMES = {fault.name: fault for fault in FAULTS}
GROUPS = tuple(dict.fromkeys(fault.group for fault in FAULTS))
NAME = "faults"


def main(
    what: Annotated[str, typer.Argument(help=f"all, a group ({', '.join(GROUPS)}) or the name of a fault.")],
    artifact: Annotated[Path, typer.Option(help="Artefact folder.")],
    out: Annotated[Path, typer.Option(help="Folder of the figures.")] = results.RESULTS,
    quick: Annotated[bool, typer.Option(help="Shorter, to try the commands; records no figures.")] = False,
) -> None:
    """Tries faults on services of their own, under load, and records the answers and the broken promises.

    A repeated fault replaces its own entry. Exits with 1 if a fault could not be tried; a broken promise is
    a figure like any other.
    """
    chosen = [fault for fault in FAULTS if what in ("all", fault.group, fault.name)]
    if not chosen:
        raise typer.BadParameter(f"all, one of {', '.join(GROUPS)}, or one of {', '.join(NAMES)}", param_hint="WHAT")
    # A quick run must not overwrite recorded figures.
    if quick and out == results.RESULTS:
        raise typer.BadParameter(
            "a quick run needs a folder of its own, so that it overwrites no figures", param_hint="--out"
        )
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    console, failed = Console(), []
    for fault in chosen:
        console.print(f"[bold]{fault.name}[/bold]")
        try:
            entry = tried(fault, artifact, quick=quick)
        except KeyboardInterrupt:
            console.print("interrupted: the faults tried before are written")
            raise typer.Exit(130) from None
        except (RuntimeError, OSError, LoadError, NotReadyError) as error:
            failed.append(fault.name)
            console.print(f"  failed: {type(error).__name__}: {error}", style="red", highlight=False, markup=False)
            continue
        keep(fault, entry, out)
        _show(console, entry)
    if failed:
        typer.echo(f"chaos: could not try: {', '.join(failed)}", err=True)
        raise typer.Exit(1)


def tried(fault: Fault, artifact: Path, *, quick: bool = False) -> dict[str, Any]:
    """Runs one fault on a fresh scene and returns its entry."""
    with tempfile.TemporaryDirectory(prefix="gpt4rec-chaos-") as folder:
        scene = Scene(artifact, Path(folder), quick)
        with scene.stack:
            fault.run(scene)
        return scene.entry(fault)


def keep(fault: Fault, entry: dict[str, Any], out: Path) -> None:
    """Writes the entry and its row, in place of former ones."""
    faults = (results.load(NAME, out) or {}).get("faults", {})
    command = "python -m loadtests.chaos all --artifact ARTIFACT"
    results.save(NAME, {"faults": {**faults, fault.name: entry}}, command=command, folder=out)
    row = results.row(f"2 {fault.name}", len(entry["broken"]), "promises broken", command, at_most=0)
    results.record(out / results.RELIABILITY.name, row)


def _show(console: Console, entry: dict[str, Any]) -> None:
    answers = ", ".join(f"{rung} {n}" for rung, n in entry["answers"].items() if n)
    events = ", ".join(f"{name} {n}" for name, n in entry["events"].items() if n)
    lines = [
        f"{entry['seconds']:g} s, {entry['requests']} requests; lists: {answers or 'none'}; events: {events or 'none'}",
        f"reasons {entry['reasons']}, errors {entry['errors']}",
        f"late {entry['late']}, p99 {entry['p99_ms']} ms, wrong {entry['wrong']}, recovery {entry['recovery_s']} s",
        *entry["notes"],
        *(f"BROKEN: {text}" for text in (*entry["broken"], *entry["wrong_examples"])),
    ]
    for line in lines:
        console.print(f"  {line}", highlight=False, markup=False)


if __name__ == "__main__":
    run_command(main)
