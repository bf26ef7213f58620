"""How much memory comes back when models are evicted: one process, several models of an artefact, room for a part.

    python -m loadtests.fleet.evicted --artifact artifacts/latest [--models 6] [--kept 2] [--record]

Resident memory is read after all models were opened and warmed up, after all but some were closed, and after one was
opened again. What lists below the model need (catalogue, signals) stays, as in the service.
"""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Annotated

import typer

from loadtests.common import results
from service.artifact.artifact import Artifact
from service.cli.outermost import run_command
from service.engine.engine import Engine
from service.lifecycle.evictable_engine import EvictableEngine, Footprint
from service.process.memory import resident_bytes, return_freed

_MIB = 2**20


def opened(artifact: Path) -> EvictableEngine:
    """Returns a warm engine that can be closed and opened again."""
    parts = Artifact.open(artifact)

    def engine() -> Engine:
        made = Engine(parts, device="cpu", threads=1)
        made.warm_up()
        return made

    before = resident_bytes()
    return EvictableEngine(engine(), engine, Footprint(0, before))


def settled_mib() -> float:
    """Returns resident memory once what was freed has gone back."""
    gc.collect()
    return_freed()
    return resident_bytes() / _MIB


def measure(artifact: Path, models: int, kept: int) -> dict[str, float]:
    """Returns what a model takes, and by how much the process shrinks and grows with one, in MiB.

    The first model is left out: with it, libraries are loaded.
    """
    opened(artifact).evict()
    empty = settled_mib()
    engines = [opened(artifact) for _ in range(models)]
    full = settled_mib()
    for engine in engines[kept:]:
        engine.evict()
    closed = settled_mib()
    engines[-1].reopen()
    again = settled_mib()
    return {
        "a model adds": (full - empty) / models,
        "an evicted model gives back": (full - closed) / (models - kept),
        "a model opened again adds": again - closed,
    }


def main(
    artifact: Annotated[Path, typer.Option(help="Artefact folder.")],
    models: Annotated[int, typer.Option(min=2, help="Models that are opened.")] = 6,
    kept: Annotated[int, typer.Option(min=1, help="Models that stay.")] = 2,
    record: Annotated[bool, typer.Option("--record", help="Write the rows into loadtests/results/fleet.json.")] = False,
) -> None:
    """Measures the memory that evicted models give back."""
    command = f"python -m loadtests.fleet.evicted --artifact ARTEFACT --models {models} --kept {kept} --record"
    for name, mib in measure(artifact, models, kept).items():
        row = results.row(f"spaces: memory, {name}", round(mib, 2), "MiB", command)
        typer.echo(f"{row.criterion}: {row.value:g} {row.unit}")
        if record:
            results.record(results.FLEET, row)


if __name__ == "__main__":
    run_command(main)
