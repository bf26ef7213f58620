"""Trains some steps as one of several processes and notes the loss of each: a part of `loadtests.fleet.torch_equal`."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Annotated

import typer

from model.data.dataset import Dataset
from model.training.config import TrainConfig
from model.training.parallel.processes import joined
from model.training.parallel.sharded_trainer import ShardedTrainer
from model.training.parallel.trainer import ParallelTrainer
from model.training.reports import Tick
from service.cli.outermost import run_command


class _EnoughError(Exception):
    """As many steps as were asked for are made; raised in every process after the same one."""


def main(
    data: Annotated[Path, typer.Option(help="Data set folder.")],
    out: Annotated[Path, typer.Option(help="Run folder to create.")],
    losses: Annotated[Path, typer.Option(help="JSON file for the losses, which the first process writes.")],
    steps: Annotated[int, typer.Option(help="Steps to make.")] = 100,
    assignments: Annotated[list[str] | None, typer.Option("--set", help="A training setting, key=value.")] = None,
) -> None:
    """Trains, and writes the loss of every step."""
    config = TrainConfig.build(None, assignments or [])
    sums: list[float] = []
    found: list[float] = []

    def note(tick: Tick) -> None:
        before = sums[-1] if tick.done > 1 else 0.0
        sums.append(tick.loss * tick.done)
        found.append(sums[-1] - before)
        if len(found) >= steps:
            raise _EnoughError

    with joined() as processes:
        kind = ShardedTrainer if config.shard_items else ParallelTrainer
        trainer = kind(processes, Dataset.load(data), data, out, config)
        with contextlib.suppress(_EnoughError):
            trainer.fit(report=note)
        if processes.is_first:
            losses.write_text(json.dumps(found), "utf-8")


if __name__ == "__main__":
    run_command(main)
