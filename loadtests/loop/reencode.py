"""What it costs to encode every user's history anew, after a model whose encoder is another one.

    python -m loadtests.loop.reencode --artifact DIR --data DIR [--seconds 30] [--record]

Histories of the data, as long as the service encodes them, are encoded in batches on one engine, and counted. A service
does this when users come back, with the encoder's spare time; hours are those of one process that does nothing else.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from loadtests.common import results
from loadtests.loop import criteria
from model.data.dataset import Dataset, sequences
from model.evaluation.rankers import encoding_of
from service.artifact.features import EventArrays
from service.cli.outermost import run_command
from service.engine.engine import Engine
from service.engine.jobs import EncodeJob
from service.engine.run_groups import result_of

BATCH = 64
# Histories that are encoded over and over.
HISTORIES_MOST = 20_000


def histories(engine: Engine, data: Path, limit: int) -> list[EncodeJob]:
    """Returns the encodings of users of a data set, whose items are found by their ids, in a random order."""
    log = sequences(Dataset.load(data))
    index, unknown = engine.artifact.vocabulary.item_index, engine.artifact.vocabulary.unknown_item
    place = np.array([index.get(item, unknown) for item in log.item_ids], np.int64)
    users = np.random.default_rng(0).permutation(log.n_users)[:limit]
    rows = [log.user(int(user)) for user in users]
    return [encoding_of(engine, EventArrays(place[log.item[r]], log.type[r], log.time_ms[r])) for r in rows]


def encode(engine: Engine, jobs: list[EncodeJob], seconds: float) -> tuple[int, float]:
    """Encodes the jobs over and over for some time; returns how many were encoded, and the time that it took."""
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        first = done % len(jobs)
        batch = jobs[first : first + BATCH]
        for state in engine.encode(batch):
            result_of(state)
        done += len(batch)
    return done, time.perf_counter() - began


def main(
    artifact: Annotated[Path, typer.Option(exists=True, help="Artefact whose encoder runs.")],
    data: Annotated[Path, typer.Option(exists=True, help="Data set whose histories are encoded.")],
    seconds: Annotated[float, typer.Option(min=0.1, help="How long to encode.")] = 30.0,
    threads: Annotated[int, typer.Option(min=1, help="Threads of a run.")] = 1,
    record: Annotated[bool, typer.Option("--record", help="Write the row into loadtests/results/loop.json.")] = False,
) -> None:
    """Measure encodes a second, and say how long all users take."""
    if record and threads != 1:
        raise typer.BadParameter("the row is that of one thread", param_hint="--record")
    engine = Engine.open(artifact, device="cpu", threads=threads)
    jobs = histories(engine, data, HISTORIES_MOST)
    encode(engine, jobs, seconds / 10)  # warms up
    done, took = encode(engine, jobs, seconds)
    rate, events = done / took, float(np.mean([len(job.events) for job in jobs]))
    hours = criteria.REENCODED_USERS / rate / 3600
    typer.echo(
        f"{rate:,.0f} encodes a second of {events:.1f} events on {threads} thread(s): "
        f"{criteria.REENCODED_USERS:,} users take {hours:.2f} hours"
    )
    if record:
        asked = f"--artifact {artifact.name} --data {data.name} --seconds {seconds:g} --record"
        command = f"python -m loadtests.loop.reencode {asked}"
        results.record(results.LOOP, criteria.row(criteria.REENCODE, hours, "hours", command))


if __name__ == "__main__":
    run_command(main)
