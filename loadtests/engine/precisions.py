"""Decodes the same lists by artefacts of one run at several precisions, in turns.

    python -m loadtests.engine.precisions --artifact FLOAT32 --artifact INT8

The first artefact is what the others are compared with: the time of a run at several batch sizes, one thread, and the
places of the top ten that hold the same item.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from loadtests.common.report import table
from loadtests.engine.decoder_cases import BEAM, NARROW, STATES, jobs
from loadtests.engine.paired_timing import Timed, paired
from service.cli.outermost import run_command
from service.engine.engine import Engine
from service.engine.jobs import DecodedList, DecodeJob
from service.engine.run_groups import result_of
from service.signals.item_values import NO_VALUES

BATCHES = (1, 8, 32)


def batches_of(engine: Engine, asked: Sequence[DecodeJob], size: int) -> Timed:
    """Returns a case that decodes `size` of the lists at once."""
    groups = [list(asked[at : at + size]) for at in range(0, STATES - size + 1, size)]
    return lambda number: [result_of(one) for one in engine.decode(groups[number % len(groups)])]


def same_places(one: Sequence[DecodedList], other: Sequence[DecodedList]) -> float:
    """Returns the share of the places of `one` that hold the same item in `other`."""
    pairs = [(a.items, b.items) for a, b in zip(one, other, strict=True)]
    equal = sum(int((a[: len(b)] == b[: len(a)]).sum()) for a, b in pairs)
    return equal / max(1, sum(len(a) for a, _ in pairs))


def measure(engines: Mapping[str, Engine], rounds: int, batches: Sequence[int] = BATCHES) -> list[list[Any]]:
    """Returns a row for each width and batch: both, then p50 in ms and processor time ÷ the first's, of each engine."""
    rows = []
    for decoding in (BEAM, NARROW):
        # Signals of random items would decide these lists alone.
        asked = [
            replace(job, request=replace(job.request, signals=NO_VALUES))
            for job in jobs(next(iter(engines.values())), decoding=decoding)
        ]
        for size in batches:
            cases = {name: batches_of(engine, asked, size) for name, engine in engines.items()}
            taken = paired(cases, rounds, per_round=max(4, 40 // size))
            first = next(iter(taken.values()))["cpu_p50"]
            each = [figure for ms in taken.values() for figure in (ms["p50"], ms["cpu_p50"] / first)]
            rows.append([asked[0].request.run_width, size, *each])
    return rows


def agreement(engines: Mapping[str, Engine]) -> dict[str, float]:
    """Returns the share of places of the top ten of random states that are as in the first artefact."""
    asked = [
        replace(job, request=replace(job.request, signals=NO_VALUES)) for job in jobs(next(iter(engines.values())))
    ]
    lists = {name: [result_of(one) for one in engine.decode(asked)] for name, engine in engines.items()}
    first = next(iter(lists.values()))
    return {name: same_places(first, found) for name, found in lists.items()}


def main(
    artifact: Annotated[list[Path], typer.Option(help="An artefact; the first is what the others are compared with.")],
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each case.")] = 10,
) -> None:
    """Times lists by artefacts of one run at several precisions."""
    from rich.console import Console

    engines: dict[str, Engine] = {}
    for path in artifact:
        engine = Engine.open(path, device="cpu", threads=1)
        engines[f"{engine.artifact.manifest['dtype']} {engine.artifact.model_version}"] = engine
    names = [f"{name}, {what}" for name in engines for what in ("p50 ms", "processor time")]
    console = Console(width=160)
    console.print(table("a run", ["W", "batch", *names], measure(engines, rounds)))
    for name, share in agreement(engines).items():
        console.print(f"{name}: {np.round(100 * share, 2)} % of the places of the top ten as in the first")


if __name__ == "__main__":
    run_command(main)
