"""Whether a kept list is ever stale: `python -m loadtests.engine.answers [--interleavings 10000]`.

Random things happen between two equal requests (`loadtests.engine.interleavings`): events, erasures, merges, features,
policies and rules, experiments, changes of stock, switches of the model, forced modes, and time. Each answer of the
service is compared with that of a recommender over the same parts that keeps no list. The models are two small ones
with random weights, made on the spot; the store is a Valkey of its own.

Writes the row of the criterion; the exit status is 1 if a list was stale.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from loadtests.common import limit_criteria, results
from loadtests.engine.interleavings import interleaved
from loadtests.engine.synthetic_artifact import write_synthetic
from service.artifact.features import ContextVocabulary
from service.cli.outermost import run_command
from service.engine.engine import Engine

_COMMAND = "python -m loadtests.engine.answers"
_ITEMS = 300
_MONTH_MS = 30 * 86_400_000
_CONTEXT = ContextVocabulary(
    fields=("age",), values={"age": {"old": 1, "young": 2}, "scene": {"home": 3}}, max_gap_ms=_MONTH_MS
)
# What a run prints of stale lists.
_SHOWN = 10


def main(
    interleavings: Annotated[int, typer.Option(min=1, help="How many.")] = limit_criteria.INTERLEAVINGS,
    seed: Annotated[int, typer.Option(help="Seed of all that is drawn.")] = 0,
    out: Annotated[Path, typer.Option(help="File of the rows.")] = results.ENGINE,
) -> None:
    """Looks for stale lists in random interleavings, and records how many there were."""
    if interleavings != limit_criteria.INTERLEAVINGS and out == results.ENGINE:
        raise typer.BadParameter("another number of them needs a file of its own", param_hint="--out")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory(prefix="gpt4rec-answers-") as name:
        folder = Path(name)
        one, two = (
            Engine.open(
                write_synthetic(folder / str(n), _ITEMS, size="tiny", seed=n, dense=True, fused=True, context=_CONTEXT),
                device="cpu",
                threads=1,
            )
            for n in range(2)
        )
        found = asyncio.run(interleaved(folder, (one, two), interleavings, seed))
    typer.echo(f"{found.answers} answers, of which {found.hits} were kept, {len(found.stale)} stale")
    typer.echo(", ".join(f"{name} {count}" for name, count in sorted(found.happened.items())))
    for stale in found.stale[:_SHOWN]:
        typer.echo(f"  stale: {stale}")
    results.record(out, limit_criteria.row(limit_criteria.STALE, len(found.stale), _COMMAND))
    if found.stale:
        raise typer.Exit(1)


if __name__ == "__main__":
    run_command(main)
