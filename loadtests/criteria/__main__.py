"""Measures the criteria into loadtests/results/*.json: `python -m loadtests.criteria all --artifact DIR --data DIR`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from loadtests.common import results
from loadtests.criteria import answers, cpu, curves, history, reflected, second, soak, start, store
from loadtests.harness.bench import Bench
from service.cli.outermost import run_command

MEASURES: dict[str, tuple[Callable[[Bench], None], bool]] = {
    "start": (start.run, False),
    "cpu": (cpu.run, True),
    "answers": (answers.run, True),
    "history": (history.run, False),
    "redis": (store.run, False),
    "reflected": (reflected.run, True),
    "curves": (curves.run, False),
    "wrk": (second.run, True),
    "soak": (soak.run, True),
}


def main(
    what: Annotated[str, typer.Argument(help=f"all, or one of: {', '.join(MEASURES)}.")],
    artifact: Annotated[Path, typer.Option(help="Artefact folder.")],
    data: Annotated[
        Path | None,
        typer.Option(help="Data set folder with the histories; needed by cpu, answers, reflected, wrk and soak."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the figures.")] = results.RESULTS,
    quick: Annotated[
        bool, typer.Option(help="A minute for everything, to try the commands; records no figures.")
    ] = False,
) -> None:
    """Measures criteria of the serving engine on services of its own, each on an empty embedded store.

    Writes rows of `engine.json` and files for curves. Exits with 1 if a measurement failed to run; a criterion that
    does not hold is a figure like any other.
    """
    if what != "all" and what not in MEASURES:
        raise typer.BadParameter(f"all, or one of {', '.join(MEASURES)}", param_hint="WHAT")
    # A quick run must not overwrite recorded figures.
    if quick and out == results.RESULTS:
        raise typer.BadParameter("a quick run needs a folder of its own", param_hint="--out")
    chosen = list(MEASURES) if what == "all" else [what]
    if data is None and any(MEASURES[name][1] for name in chosen):
        raise typer.BadParameter("is needed", param_hint="--data")
    console = Console()
    # One thread: more would compete with the measured service for the cores.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    failed = []
    for name in chosen:
        began = time.perf_counter()
        console.print(f"[bold]{name}[/bold]")
        bench = Bench(artifact, data, command(name), console, out, quick)
        try:
            MEASURES[name][0](bench)
        except KeyboardInterrupt:
            console.print("interrupted: the figures measured before are written")
            raise typer.Exit(130) from None
        except Exception as error:
            failed.append(name)
            console.print(f"  [red]failed:[/red] {type(error).__name__}: {error}", highlight=False)
        console.print(f"  {time.perf_counter() - began:.0f} s", highlight=False)
    if failed:
        typer.echo(f"criteria: no figures of {', '.join(failed)}", err=True)
        raise typer.Exit(1)


def command(name: str) -> str:
    """Returns the command as the documents show it, with placeholders for the folders."""
    data = " --data DATA" if MEASURES[name][1] else ""
    return f"python -m loadtests.criteria {name} --artifact ARTIFACT{data}"


if __name__ == "__main__":
    run_command(main)
