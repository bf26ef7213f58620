"""Checkpoints: what a run writes after each epoch, and how it continues from there."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.data.dataset import Dataset
from model.errors import RunError
from model.training.config import TrainConfig
from model.training.run_folder import BEST, CHECKPOINT, Run, has_checkpoint, load_tensors, save_tensors


@dataclass
class Progress:
    """How far a run has come; saved with the checkpoint.

    Attributes:
        epoch: Finished epochs.
        step: Optimiser steps so far.
        best_ndcg: Best validation NDCG@10; −1 before the first epoch.
        best_epoch: Its epoch, counted from 0; −1 before the first.
        seconds: Time of the run over all resumed parts, until its last epoch.
        prepared_seconds: The part of it before the epochs began.
        questions: Most users of a validation; 0 before it was decided.
        history: Losses, validation NDCG@10 and seconds of each epoch.
    """

    epoch: int = 0
    step: int = 0
    best_ndcg: float = -1.0
    best_epoch: int = -1
    seconds: float = 0.0
    prepared_seconds: float = 0.0
    questions: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


def claim_folder(folder: Path, config: TrainConfig, dataset: Dataset, *, resume: bool) -> None:
    """Creates the run folder, or checks that it holds the run to resume: same configuration, same data.

    Raises:
        RunError: The folder holds a run but should be new, or holds none to resume, or another one.
    """
    has_run = has_checkpoint(folder)
    if resume and not has_run:
        raise RunError("there is no finished epoch to resume", where=str(folder), fix="train without --resume")
    if resume:
        run = Run.open(folder)
        # First the data: settings that are left open follow from them.
        if run.data["fingerprint"] != dataset.fingerprint:
            raise RunError(
                f"the run was trained on other data: {run.data['name']}, {run.data['events']:,} events (fingerprints "
                "differ)",
                where=str(folder),
                fix="train into another folder",
            )
        if run.config != config:
            raise RunError(
                "the run was trained with another configuration",
                where=f"{folder / 'config.json'}",
                fix="leave out --config, --set and --seed to resume with the run's own",
            )
    elif has_run:
        raise RunError(
            "the folder already holds a run",
            where=str(folder),
            fix="add --resume to continue it, or name another --out",
        )
    folder.mkdir(parents=True, exist_ok=True)


def save_best(folder: Path, average: nn.Module, progress: Progress) -> None:
    """Saves the weights of the best epoch so far, which evaluation and export open."""
    meta = {"epoch": progress.best_epoch, "ndcg@10": progress.best_ndcg}
    save_tensors(folder / BEST, average.state_dict(), meta)


def save_checkpoint(
    folder: Path, model: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer, progress: Progress
) -> None:
    """Saves everything from which the next epoch follows."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in average.state_dict().items()}
    for number, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{number}.{name}": value for name, value in state.items()}
    save_tensors(folder / CHECKPOINT, tensors, asdict(progress))


def load_checkpoint(folder: Path, model: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer) -> Progress:
    """Loads what `save_checkpoint` wrote into the modules and the optimiser, and returns the progress.

    Raises:
        RunError: The checkpoint is missing or damaged.
    """
    tensors, meta = load_tensors(folder / CHECKPOINT)
    try:
        _adopt(tensors, model, average, optimiser)
        return Progress(**meta)
    except (RuntimeError, ValueError, LookupError, TypeError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise RunError(
            f"the checkpoint belongs to another network: {first}", where=str(folder / CHECKPOINT), fix="train again"
        ) from error


def _adopt(tensors: dict[str, Tensor], model: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    def under(prefix: str) -> dict[str, Tensor]:
        return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}

    model.load_state_dict(under("model."))
    average.load_state_dict(under("average."))
    state: dict[int, dict[str, Any]] = {}
    for name, tensor in under("optimiser.").items():
        number, _, key = name.partition(".")
        state.setdefault(int(number), {})[key] = tensor
    optimiser.load_state_dict(optimiser.state_dict() | {"state": state})
