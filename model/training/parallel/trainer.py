"""The training on several processes: the loop of `model.training.trainer`, each process with its rows of every batch.

What differs: gradients and losses are added up over the processes before a step; whether time is up, how far the
training is and whether it was interrupted is agreed after each step, so that all processes stop at the same one; the
first process alone fits what comes before the network, and writes.
"""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from model.data.dataset import Dataset
from model.network.gpt4rec import GPT4Rec
from model.training.batch_loss import BatchLoss
from model.training.batches import Batch
from model.training.checkpoint import Progress
from model.training.config import TrainConfig
from model.training.fitted_parts import FittedParts
from model.training.optimiser import is_in_parts
from model.training.parallel.allowed import check_allowed
from model.training.parallel.interrupts import Interrupts
from model.training.parallel.loss import ParallelLoss
from model.training.parallel.processes import Processes, lost_process
from model.training.positions import Setup
from model.training.trainer import MAX_QUESTIONS, Trainer
from model.training.validation import validation_gains

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class ParallelTrainer(Trainer):
    """A training that is one of several processes; see `Trainer`.

    Attributes:
        processes: All of them.
    """

    def __init__(
        self,
        processes: Processes,
        dataset: Dataset,
        data_path: Path,
        folder: Path,
        config: TrainConfig,
        *,
        resume: bool = False,
    ) -> None:
        """Prepares this process's part of a run; the arguments after the processes are those of `Trainer`.

        Raises:
            ConfigError: A setting does not go with several processes.
            RunError: See `Trainer`; or another process has ended.
        """
        check_allowed(config)
        self.processes = processes
        self._interrupts = Interrupts()
        self._agreed_share, self._agreed_end = 0.0, False
        super().__init__(dataset, data_path, folder, config, resume=resume)

    # -- what is prepared

    def _device(self) -> torch.device:
        return self.processes.device

    def _fit_parts(self, dataset: Dataset, data_path: Path, *, resume: bool) -> FittedParts:
        """The first process fits; the others read what it has written, and fit nothing that takes long."""

        def fit() -> FittedParts:
            parts = super(ParallelTrainer, self)._fit_parts(dataset, data_path, resume=resume)
            if not resume:
                parts.save(self.folder)
            return parts

        parts = self.processes.first_does(fit)
        return super()._fit_parts(dataset, data_path, resume=True) if parts is None else parts

    def _first_network(self, parts: FittedParts) -> GPT4Rec:
        model = super()._first_network(parts)
        self._start_alike(model)
        return model

    def _start_alike(self, model: GPT4Rec) -> None:
        """Gives every process the weights of the first one; parts of the item table stay."""
        whole = [tensor for tensor in [*model.parameters(), *model.buffers()] if not is_in_parts(tensor)]
        self.processes.copy_of_first(whole)

    def _describe_run(self, dataset: Dataset, data_path: Path, parts: FittedParts) -> None:
        if self.processes.is_first:
            super()._describe_run(dataset, data_path, parts)

    def _batch_loss(self, setup: Setup) -> BatchLoss:
        return ParallelLoss(self.model, setup.conditions, self.config, self.log_q, self.processes)

    # -- the epochs

    def fit(self, **how: Any) -> Progress:
        """Trains; see `Trainer.fit`. The time of the first process decides.

        Raises:
            KeyboardInterrupt: A process was told to end; all of them stop after the same step.
            RunError: See `Trainer.fit`; or another process has ended.
        """
        limit = how.get("limit")
        self._agreed_share = 0.0
        self._agreed_end = self.processes.of_first(limit is not None and limit.epochs_left_s <= 0)
        with self._interrupts.watching(), lost_process():
            return super().fit(**how)

    def _step(self, batch: Batch) -> tuple[float, float, float]:
        assert isinstance(self._loss, ParallelLoss)  # noqa: S101 - from `_batch_loss`
        self._loss.step = self.progress.step + 1
        return super()._step(batch)

    def _share_done(self) -> float:
        return super()._share_done() if self._limit.cap_s is None else self._agreed_share

    def _move(self) -> None:
        self.processes.sum_gradients(
            [p.grad for p in self.model.parameters() if p.grad is not None and not is_in_parts(p)]
        )
        super()._move()

    def _of_all(self, losses: tuple[float, float, float]) -> tuple[float, float, float]:
        """Adds up the losses, and agrees on how far the training is.

        Raises:
            KeyboardInterrupt: A process was told to end.
        """
        first = self.processes.is_first
        share, ends = super()._share_done() if first else 0.0, first and super()._no_time_left()
        told = torch.tensor([*losses, share, ends, self._interrupts.noted], dtype=torch.float64)
        loss, dense, codes, self._agreed_share, end, interrupted = self.processes.sum(told).tolist()
        self._agreed_end = end > 0
        if interrupted:
            raise KeyboardInterrupt
        return loss, dense, codes

    def _no_time_left(self) -> bool:
        return self._agreed_end

    def _validated(self) -> float:
        """Returns the NDCG@10 of all questions, of which each process asks its own."""
        gains = validation_gains(
            self.average, self.split, self.vocabulary, self.progress.questions or MAX_QUESTIONS,
            exclude_history=not self.config.repeats, part=(self.processes.rank, self.processes.world),
        )  # fmt: skip
        total, n = self.processes.sum(torch.tensor([gains.sum(), len(gains)], dtype=torch.float64)).tolist()
        return float(total / max(n, 1))

    def _board(self) -> AbstractContextManager[SummaryWriter]:
        return super()._board() if self.processes.is_first else contextlib.nullcontext(_NoBoard())  # type: ignore[arg-type]

    def _save(self, *, is_best: bool) -> None:
        """The first process writes; the others go on when it has written."""

        def write() -> None:
            super(ParallelTrainer, self)._save(is_best=is_best)

        self.processes.first_does(write)


class _NoBoard:
    """Takes the place of TensorBoard in processes that write nothing."""

    def add_scalar(self, *_what: Any) -> None:
        """Does nothing."""
