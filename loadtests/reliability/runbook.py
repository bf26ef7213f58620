"""Tries every entry of docs/runbook.md against its fault: `python -m loadtests.reliability.runbook --artifact DIR`.

A trial runs a service under load, with a real Prometheus that evaluates the alert rules; only their windows
and minimum counts are `SCALE` times smaller, so that hours become half-minutes. The fault is injected and the alert has
to fire. The commands of the entry are run as an operator would (`gpt4rec ops …` as processes). Then the alert has to
stop, and lists have to be whole and in time again. Writes `runbook.json`.

The trial itself does what an operator of the service cannot, at the point where the entry names who does it: thawing
Redis, or stopping the other work on the machine.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console

from loadtests.common import results
from loadtests.reliability.runbook_stage import RATE, SCALE, Stage, TrialError
from loadtests.reliability.runbook_trials import TRIALS, Trial
from service.cli.outermost import run_command


def tried(trial: Trial, artifact: Path) -> dict[str, Any]:
    """Runs a trial and returns its row: whether it holds, the steps, and when each state was reached."""
    with tempfile.TemporaryDirectory(prefix="gpt4rec-runbook-") as folder, ExitStack() as stack:
        stage = Stage(artifact, trial.alert, Path(folder), stack)
        fault = ""
        try:
            trial.run(stage)
        except TrialError as error:
            fault = str(error)
        return {
            "alert": trial.alert, "fault": trial.fault, "holds": not fault, "broken": fault, **stage.times,
            "steps": stage.steps, **stage.tally(),
        }  # fmt: skip


def main(
    artifact: Annotated[Path, typer.Option(help="Artefact folder.")],
    out: Annotated[Path, typer.Option(help="Folder of the figures.")] = results.RESULTS,
    only: Annotated[
        str, typer.Option(help="Only trials of alerts whose name contains this; the rows of the others stay.")
    ] = "",
) -> None:
    """Tries the entries of the runbook; exits with 1 if one does not lead to a healthy service."""
    console = Console()
    file = out / "runbook.json"
    kept = {row["alert"]: row for row in orjson.loads(file.read_bytes())["trials"]} if file.exists() else {}
    for trial in TRIALS:
        if only.lower() in trial.alert.lower():
            row = kept[trial.alert] = tried(trial, artifact)
            console.print(
                trial.alert, "holds" if row["holds"] else f"BROKEN: {row['broken']}", row.get("fired_after_s")
            )
    rows = [kept[trial.alert] for trial in TRIALS if trial.alert in kept]
    command = "python -m loadtests.reliability.runbook --artifact ARTIFACT"
    results.save("runbook", {"scale": SCALE, "rate": RATE, "trials": rows}, command=command, folder=out)
    raise typer.Exit(0 if all(row["holds"] for row in rows) else 1)


if __name__ == "__main__":
    run_command(main)
