"""The whole loop on simulated users: does it learn, does the experiment find what is better, was it foretold?

    python -m loadtests.loop.whole [--record] [--work DIR] [--fresh]

Users with known tastes visit a real service over HTTP (`loadtests/simulator/`); programs that click on everything do so
too. In each cycle `gpt4rec loop run` makes a model of the log, and a canary shows it to users; a share of them keeps
the first model. Half-way tastes drift. Then off-policy evaluation foretells what two policies earn, and an experiment
shows them. Progress is kept: an interrupted run goes on when the command is given again.
"""

from __future__ import annotations

import shutil
import signal
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from loadtests.common import results
from loadtests.loop.whole import figures
from loadtests.loop.whole.cycles import Tell, cycle, first_model, open_service
from loadtests.loop.whole.plan import NAME, Plan, Progress
from loadtests.loop.whole.simulated import Simulated
from loadtests.loop.whole.site import site
from loadtests.loop.whole.trial import experiment, foretell
from service.cli.outermost import run_command

_WORK = Path(tempfile.gettempdir()) / "gpt4rec-loop-whole"
_DEFAULT = Plan()


def whole(plan: Plan, work: Path, tell: Tell) -> figures.Found:
    """Runs what is left of the loop, and returns what came of it.

    Args:
        plan: How large it is.
        work: Folder of everything that it makes.
        tell: Called with progress.
    """
    progress = Progress.open(work, plan)
    simulated = Simulated(plan, work)
    first_model(progress, simulated, tell)
    with site(work) as running:
        open_service(progress, simulated, running, tell)
        for number in range(1, plan.cycles + 1):
            cycle(number, progress, simulated, running, tell)
        foretell(progress, simulated, running, tell)
        experiment(progress, simulated, running, tell)
    return figures.found(progress)


def main(
    users: Annotated[int, typer.Option(min=20, help="Simulated users.")] = _DEFAULT.users,
    items: Annotated[int, typer.Option(min=50, help="Items of the catalogue.")] = _DEFAULT.items,
    cycles: Annotated[int, typer.Option(min=1, help="Cycles; tastes drift after half of them.")] = _DEFAULT.cycles,
    lists: Annotated[int, typer.Option(min=1, help="Lists of each user in a cycle.")] = _DEFAULT.lists,
    past: Annotated[int, typer.Option(min=1, help="Lists of each user before the service begins.")] = _DEFAULT.past,
    trial: Annotated[
        int, typer.Option(min=1, help="Lists of each user, of one half before and of the other in the experiment.")
    ] = _DEFAULT.trial,
    epochs: Annotated[int, typer.Option(min=1, help="Most epochs of the first training.")] = _DEFAULT.epochs,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = _DEFAULT.seed,
    work: Annotated[Path, typer.Option(help="Folder of everything that it makes, and of its progress.")] = _WORK,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin again, without the kept progress.")] = False,
    record: Annotated[bool, typer.Option("--record", help="Write rows and figures into loadtests/results.")] = False,
) -> None:
    """Run the whole loop on simulated users. Exits with 1 if a criterion does not hold."""
    plan = Plan(
        users=users, items=items, cycles=cycles, lists=lists, past=past, trial=trial, epochs=epochs, seed=seed
    )  # fmt: skip
    if record and plan != _DEFAULT:
        raise typer.BadParameter("figures are those of the default sizes", param_hint="--record")
    for sig in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sig, signal.default_int_handler)  # also in the background, where a shell ignores SIGINT
    if fresh and (work / "progress.json").exists():
        shutil.rmtree(work)
    try:
        found = whole(plan, work.resolve(), lambda line: typer.echo(line, err=True))
    except KeyboardInterrupt:
        typer.echo("interrupted; give the command again to go on", err=True)
        raise typer.Exit(1) from None
    for line in figures.lines(found):
        typer.echo(line)
    command = "python -m loadtests.loop.whole --record"
    judged = figures.rows(found, command)
    if record:
        for row in judged:
            results.record(results.LOOP, row)
        results.save(NAME, {"plan": asdict(plan), **asdict(found)}, command=command)
    raise typer.Exit(int(any(row.holds is False for row in judged)))


if __name__ == "__main__":
    run_command(main)
