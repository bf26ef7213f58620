"""Decodes lists of a synthetic artefact on request, so that two working trees can be timed in turns.

    python -m loadtests.engine.decode_worker FOLDER --items 12000 --batch 32

Prints a line when it is ready. Each number read from the standard input is a number of decoder runs to make; the answer
is a line with the median of their processor milliseconds. FOLDER keeps the artefact. Only what every version of the
engine has is used, so that the file can be run against an older tree (`loadtests.quality.cost`).
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from loadtests.engine.decoder_cases import STATES, jobs
from loadtests.engine.synthetic_artifact import write_synthetic
from service.cli.outermost import run_command
from service.engine.engine import Engine


def main(
    folder: Annotated[Path, typer.Argument(help="Folder of the artefact, which is made if it is missing.")],
    items: Annotated[int, typer.Option(min=2, help="Size of the catalogue.")] = 12_000,
    batch: Annotated[int, typer.Option(min=1, help="Lists of a run.")] = 1,
) -> None:
    """Answers each number on the standard input with the median milliseconds of so many decoder runs."""
    made = sorted(file.parent for file in folder.glob(f"synthetic-{items}-*/manifest.json"))
    engine = Engine.open(made[0] if made else write_synthetic(folder, items, dense=None), device="cpu", threads=1)
    asked = jobs(engine)
    rows = [[asked[(start + n) % STATES] for n in range(batch)] for start in range(STATES)]

    def decode(number: int) -> float:
        """Makes one run; returns its processor milliseconds."""
        began = time.process_time()
        for listed in engine.decode(rows[number % STATES]):
            if isinstance(listed, Exception):
                raise listed
        return 1000 * (time.process_time() - began)

    decode(0)
    typer.echo("ready")
    for line in sys.stdin:
        typer.echo(f"{np.median([decode(number) for number in range(int(line))]):.6f}")


if __name__ == "__main__":
    run_command(main)
