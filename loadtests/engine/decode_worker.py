"""Decodes lists of a synthetic artefact on request, so that two working trees can be timed in turns.

    python -m loadtests.engine.decode_worker FOLDER --items 12000 --batch 32 [--fused]

Prints a line when it is ready. Each number read from the standard input is a number of decoder runs to make; the answer
is a line with the median of their processor milliseconds. FOLDER keeps the artefact. Without `--fused` only what every
version of the engine has is used, so that the file can be run against an older tree (`loadtests.quality.cost`).

With `--fused` every signal has a weight, and a list comes with what the user's signals add, as the service asks for it:
the profile keeps it. After "40 fresh" each of 40 runs makes the first lists after an event, so that it is computed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from loadtests.engine.decoder_cases import STATES, jobs
from loadtests.engine.synthetic_artifact import write_synthetic
from service.cli.outermost import run_command
from service.engine.engine import Engine
from service.engine.jobs import DecodeJob

# (number of the run, whether an event came before) → processor milliseconds
Run = Callable[[int, bool], float]


def main(
    folder: Annotated[Path, typer.Argument(help="Folder of the artefact, which is made if it is missing.")],
    items: Annotated[int, typer.Option(min=2, help="Size of the catalogue.")] = 12_000,
    batch: Annotated[int, typer.Option(min=1, help="Lists of a run.")] = 1,
    fused: Annotated[bool, typer.Option("--fused", help="With all signals.")] = False,
) -> None:
    """Answers each number on the standard input with the median milliseconds of so many decoder runs."""
    made = sorted(file.parent for file in folder.glob(f"{'fused' if fused else 'synthetic'}-{items}-*/manifest.json"))
    options = {"fused": True} if fused else {}  # an older tree does not know it
    path = made[0] if made else write_synthetic(folder, items, dense=None, **options)  # type: ignore[arg-type]
    engine = Engine.open(path, device="cpu", threads=1)
    run = _with_signals(engine, batch) if fused else _alone(engine, batch)
    run(0, False)
    typer.echo("ready")
    for line in sys.stdin:
        runs, *how = line.split()
        typer.echo(f"{np.median([run(number, bool(how)) for number in range(int(runs))]):.6f}")


def _alone(engine: Engine, batch: int) -> Run:
    """Returns runs of lists as the tree's own cases have them."""
    asked = jobs(engine)
    rows = [[asked[(start + n) % STATES] for n in range(batch)] for start in range(STATES)]

    def run(number: int, _: bool) -> float:
        began = time.process_time()
        _decode(engine, rows[number % STATES])
        return 1000 * (time.process_time() - began)

    return run


def _with_signals(engine: Engine, batch: int) -> Run:
    """Returns runs of lists with the signals of their users."""
    from loadtests.engine.user_cases import Users  # an older tree does not have it

    asked, users = jobs(engine), Users(engine)

    def run(number: int, fresh: bool) -> float:
        places = [(number + n) % STATES for n in range(batch)]
        profiles = [users.after_an_event(place) if fresh else users.profiles[place] for place in places]
        began = time.process_time()
        signals = [profile.signals(profile.history) for profile in profiles]
        found = zip(places, signals, strict=True)
        _decode(engine, [replace(asked[at], request=replace(asked[at].request, signals=own)) for at, own in found])
        return 1000 * (time.process_time() - began)

    return run


def _decode(engine: Engine, asked: Iterable[DecodeJob]) -> None:
    for listed in engine.decode(list(asked)):
        if isinstance(listed, Exception):
            raise listed


if __name__ == "__main__":
    run_command(main)
