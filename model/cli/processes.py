"""What `gpt4rec train` does in another way where torchrun has started it as several processes."""

from __future__ import annotations

import contextlib
from pathlib import Path

import typer
from rich.console import Console

from model.cli.closing_evaluation import ClosingEvaluation, prepare
from model.data.dataset import Dataset
from model.training.config import TrainConfig
from model.training.devices import started_by_torchrun
from model.training.parallel.processes import Processes, joined, started_again
from model.training.parallel.sharded_trainer import ShardedTrainer
from model.training.parallel.trainer import ParallelTrainer
from model.training.run_folder import has_checkpoint
from model.training.time_limit import TimeLimit
from model.training.trainer import Trainer


def joined_by_torchrun(stack: contextlib.ExitStack, data: str, init: Path | None) -> Processes | None:
    """Joins the processes that torchrun has started, until the stack is closed; None where it has started none.

    Raises:
        typer.BadParameter: What is asked for is made by one process alone.
        RunError: This machine has fewer cards than processes.
    """
    if not started_by_torchrun():
        return None
    if init is not None:
        raise typer.BadParameter("an increment is trained by one process: leave out torchrun", param_hint="--init")
    if not (Path(data) / "meta.json").exists():
        raise typer.BadParameter(
            f"{data} is no data set folder: several processes train on one, made by `gpt4rec data`", param_hint="--data"
        )
    return stack.enter_context(joined())


def is_first(processes: Processes | None) -> bool:
    """Returns whether this process writes and reports: the only one, or the first of several."""
    return processes is None or processes.is_first


def open_run(
    stack: contextlib.ExitStack,
    processes: Processes | None,
    place: Path,
    out: Path,
    settings: TrainConfig,
    *,
    resume: bool,
) -> tuple[Trainer, Dataset]:
    """Loads the data and prepares the run.

    Where torchrun has started the processes again, they go on from the last checkpoint without being told to.

    Args:
        stack: What is closed when the command ends.
        processes: All of them; None without torchrun.
        place: The data set.
        out: The run folder.
        settings: The training configuration.
        resume: Whether to continue from the last finished epoch.

    Raises:
        ConfigError: A setting does not go with several processes.
        DataError: The data set cannot be read.
        RunError: See `Trainer`.
    """
    dataset = Dataset.load(place)
    if processes is None and settings.shard_items:
        processes = stack.enter_context(joined())
    if processes is None:
        return Trainer(dataset, place, out, settings, resume=resume), dataset
    resume = resume or (started_again() and has_checkpoint(out))
    kind = ShardedTrainer if settings.shard_items else ParallelTrainer
    return kind(processes, dataset, place, out, settings, resume=resume), dataset


def prepared(
    trainer: Trainer, dataset: Dataset, limit: TimeLimit, console: Console, *, tune: bool
) -> ClosingEvaluation | None:
    """Prepares the evaluation that ends the training, in the first process alone; the arguments are those of `prepare`.

    Returns:
        The evaluation; None in a process that does not evaluate.
    """

    def prepare_here() -> ClosingEvaluation:
        return prepare(trainer, dataset, limit, console, tune=tune)

    if not isinstance(trainer, ParallelTrainer):
        return prepare_here()
    closing = trainer.processes.first_does(prepare_here)
    trainer.progress.questions = trainer.processes.of_first(trainer.progress.questions)
    return closing
