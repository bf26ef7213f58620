"""The training loop: joint loss, moving-average weights, early stopping on validation NDCG@10, checkpoints that resume.

Read it top to bottom: `Trainer` prepares a run (split → fitted parts → network → batches → loss), `fit` runs epochs,
`train_epoch` runs steps, and `_finish_epoch` keeps the best weights and writes the checkpoint. The parts:

    fitted_parts.py   what is fitted before the network is trained, and the network's start
    batches.py        the order of chunks in an epoch
    batch_loss.py     from a batch to its loss; losses.py has the loss itself
    optimiser.py      AdamW, learning rate, moving average
    validation.py     NDCG@10 after each epoch
    checkpoint.py     progress, checkpoints, and whether a folder may be used

An epoch is a function of the configuration, the data and the epoch's number: batches, dropout and context dropout are
seeded by (seed, epoch). An interrupted run therefore continues from its last finished epoch bit for bit on a CPU.
"""

from __future__ import annotations

import copy
import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from model.data.dataset import Dataset
from model.data.query_histories import with_searches
from model.data.split import Split
from model.errors import RunError
from model.network.gpt4rec import GPT4Rec
from model.training.allocator import keep_freed_memory
from model.training.batch_loss import BatchLoss
from model.training.batches import Batch, BatchPlan, cut
from model.training.checkpoint import Progress, claim_folder, load_checkpoint, save_best, save_checkpoint
from model.training.config import TrainConfig
from model.training.defaults import resolve_defaults
from model.training.devices import device_of
from model.training.fitted_parts import FittedParts, build_network, fit_parts
from model.training.losses import proposal
from model.training.methods.adapters import KeptBackbone, resolve_backbone
from model.training.methods.registry import changed_log
from model.training.optimiser import build_optimiser, learning_rate, update_average
from model.training.positions import Moment, Setup
from model.training.pretrained import resolve_pretrained
from model.training.repeats import Repeats, resolve_repeats
from model.training.reports import Report, Tick
from model.training.run_folder import split_with_validation, write_run_json
from model.training.time_limit import TimeLimit
from model.training.validation import validation_ndcg
from service.common.atomic_files import naming

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

# Most users whose validation question is evaluated after an epoch.
MAX_QUESTIONS = 5000


class Trainer:
    """A run in a folder. `fit` trains until validation stops improving, or time or epochs are used up.

    Attributes:
        config: The configuration, with the defaults that follow from the data.
        split: Training, validation and test part.
        learned: The training part as methods leave it (`model.training.methods`); tokens and context do not depend on
            them.
        repeats: What validation says about items that are taken again.
        context, vocabulary, conditions, tokenizer, network: See `FittedParts`.
        model: The network that is trained.
        average: Moving average of its weights, which is validated, saved as the best and exported.
        plan: The batches of every epoch.
        log_q: [N] log-probabilities with which negatives are drawn; −∞ for items that are no candidates.
        progress: How far the run has come.
    """

    def __init__(
        self, dataset: Dataset, data_path: Path, folder: Path, config: TrainConfig, *, resume: bool = False
    ) -> None:
        """Prepares a run.

        Args:
            dataset: The data set.
            data_path: Its folder, which the run remembers.
            folder: The run folder to create, or to resume.
            config: The training configuration.
            resume: Whether to continue from the last finished epoch.

        Raises:
            RunError: The folder holds another run, none to resume, or a damaged one; or no user is held out for
                validation.
        """
        self.folder = folder
        self.device = self._device()
        self.split: Split = split_with_validation(config, dataset)
        self.config, self.repeats = self._settled(config)
        claim_folder(folder, self.config, dataset, resume=resume)
        self.learned = changed_log(self.split.train, self.config)
        parts = self._fit_parts(dataset, data_path, resume=resume)
        self.context, self.vocabulary, self.conditions = parts.context, parts.vocabulary, parts.conditions
        self.tokenizer, self.network = parts.tokenizer, parts.network
        self.model = self._first_network(parts).to(self.device)
        self.average = copy.deepcopy(self.model).eval()
        self.optimiser = build_optimiser(self.model, self.config)
        self.plan = self._batch_plan()
        self._steps_an_epoch = len(self.plan.epoch(0))
        self._limit = TimeLimit(None)
        if resume:
            self.progress = self._load()
        else:
            self.progress = Progress()
            self._describe_run(dataset, data_path, parts)
        self._kept = KeptBackbone(self.model, self.config)
        self.log_q = self._negative_proposal()
        setup = Setup(self.model, self.config, self.conditions, dataset, self.learned, self.log_q)
        self._loss = self._batch_loss(setup)

    # -- what an increment does in another way (`model.training.increment.trainer`), or a training on several
    #    processes (`model.training.parallel.trainer`)

    def _device(self) -> torch.device:
        return device_of()

    def _batch_loss(self, setup: Setup) -> BatchLoss:
        return BatchLoss(self.model, self.conditions, self.config, self.log_q, setup)

    def _no_time_left(self) -> bool:
        """Whether the epochs must end. Asked before the steps and after each of them."""
        return self._limit.epochs_left_s <= 0

    def _validated(self) -> float:
        """Returns the validation NDCG@10 of the averaged weights."""
        questions, history = self.progress.questions or MAX_QUESTIONS, not self.config.repeats
        return validation_ndcg(self.average, self.split, self.vocabulary, questions, exclude_history=history)

    def _board(self) -> AbstractContextManager[SummaryWriter]:
        """Returns where losses and NDCG@10 are noted for TensorBoard."""
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(self.folder / "tensorboard"))

    def _save(self, *, is_best: bool) -> None:
        """Writes the checkpoint, and the averaged weights where they are the best so far."""
        if is_best:
            save_best(self.folder, self.average, self.progress)
        save_checkpoint(self.folder, self.model, self.average, self.optimiser, self.progress)

    def _of_all(self, losses: tuple[float, float, float]) -> tuple[float, float, float]:
        """Returns the losses of a whole batch, from those that this process has computed."""
        return losses

    def _load(self) -> Progress:
        """Takes weights, average and optimiser from the checkpoint, and returns how far they are."""
        return load_checkpoint(self.folder, self.model, self.average, self.optimiser)

    def _move(self) -> None:
        """Moves the weights by their gradients."""
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        self.optimiser.step()

    def _settled(self, config: TrainConfig) -> tuple[TrainConfig, Repeats]:
        """Returns the configuration with everything decided that was left open."""
        given = resolve_backbone(resolve_pretrained(config))
        return resolve_repeats(resolve_defaults(given, self.split.train), self.split)

    def _fit_parts(self, dataset: Dataset, data_path: Path, *, resume: bool) -> FittedParts:
        """Returns what is fitted before the network."""
        resumed, searches = self.folder if resume else None, self.split.sequences.searches
        return fit_parts(self.config, dataset, self.split.train, data_path, resumed, searches)

    def _first_network(self, parts: FittedParts) -> GPT4Rec:
        """Returns the network as training starts with it, on the CPU."""
        return build_network(self.config, parts, self.learned)

    @property
    def new_positions(self) -> int:
        """Number of events that the training learns from."""
        return self.learned.n_events

    def _after_step(self) -> None:
        """Called when the optimiser has moved the weights, before the average follows."""
        self._kept.restore()

    def _batch_plan(self) -> BatchPlan:
        length, context = type(self.model.encoder).cuts(self.network, self.config.max_length)
        known = self.vocabulary.known_queries
        train = with_searches(self.learned, self.split.sequences, self.network.query_buckets, known)
        return BatchPlan(cut(train, length, context), self.config.batch_tokens, self.config.seed)

    def _describe_run(self, dataset: Dataset, data_path: Path, parts: FittedParts) -> None:
        """Writes what a run folder holds besides weights."""
        parts.save(self.folder)
        self.config.save(self.folder / "config.json")
        write_run_json(
            self.folder, dataset, data_path, parts.network, parts.context, self.repeats, attributes=parts.attributes
        )

    def _negative_proposal(self) -> Tensor:
        """Returns `log_q`: items that only their content stands for are no candidates of the loss."""
        train, gate = self.learned, self.model.of_content
        candidates = np.ones(train.n_items, bool) if gate is None else ~gate.unseen_with_content.cpu().numpy()
        return proposal(train.item, candidates).to(self.device)

    def fit(
        self, *, max_minutes: float | None = None, limit: TimeLimit | None = None, report: Report | None = None
    ) -> Progress:
        """Trains. Whenever an epoch has finished, `best.safetensors` holds the weights of the best one.

        A run whose time is up before its first epoch still makes one batch, so that it has weights.

        Args:
            max_minutes: Stop after this time, resumed parts included; None trains to the last epoch.
            limit: The time of the run, where it began before this call; instead of `max_minutes`.
            report: Called after each batch.

        Raises:
            RunError: The loss is no longer finite; the last finished epoch is kept.
        """
        progress, config = self.progress, self.config
        # The operators are small: a second thread gains nothing at the default size, and how sums are split among
        # threads is not the same from run to run.
        torch.set_num_threads(config.threads or os.cpu_count() or 1)
        keep_freed_memory()
        self._limit = limit = limit or TimeLimit(max_minutes, used_s=progress.seconds)
        progress.prepared_seconds += max(0.0, limit.used_s - progress.seconds)
        with naming(self.folder / "tensorboard"), self._board() as board:
            while progress.epoch < config.max_epochs and self._epochs_without_gain() <= config.patience:
                if progress.epoch and self._no_time_left():
                    break
                losses = self.train_epoch(report)
                ndcg = self._validated()
                progress.seconds = limit.used_s
                self._finish_epoch(ndcg, losses)
                for name, value in progress.history[-1].items():
                    board.add_scalar(name, value, progress.epoch)
        return progress

    def _epochs_without_gain(self) -> int:
        """Returns the epochs since the best one; pretraining is not expected to gain any."""
        pretraining = self.config.method_settings().pretrain_epochs
        return self.progress.epoch - max(self.progress.best_epoch, pretraining - 1)

    def train_epoch(self, report: Report | None = None) -> dict[str, float]:
        """Makes one pass over the batches. It ends early when time is up; that epoch counts although it is shorter.

        Returns:
            The mean losses of the epoch, by their names in the history.
        """
        config, progress = self.config, self.progress
        torch.manual_seed(_epoch_seed(config.seed, progress.epoch))
        self.model.train()
        total = len(self.plan.epoch(progress.epoch))
        sums = np.zeros(3)
        done = 0
        for batch in self.plan.batches(progress.epoch, self.network.n_items + 1):
            sums += self._step(batch)
            done += 1
            if not np.isfinite(sums[0]):
                raise RunError(
                    "the loss is not finite",
                    where=f"epoch {progress.epoch + 1}, batch {done} of {total}",
                    fix=f"lower learning_rate ({config.learning_rate:g}) or clip_norm ({config.clip_norm:g})",
                )
            if report is not None:
                report(Tick(progress.epoch, done, total, sums[0] / done, progress))
            if self._no_time_left():
                break
        return dict(zip(("loss", "loss_dense", "loss_codes"), (sums / max(done, 1)).tolist(), strict=True))

    def _step(self, batch: Batch) -> tuple[float, float, float]:
        """Makes one optimiser step; returns the loss and its dense and codes part."""
        config, progress = self.config, self.progress
        progress.step += 1
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(config, progress.step, self._share_done())
        loss, dense, codes = self._loss(batch, Moment(progress.epoch, self._share_done()))
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._move()
        self._after_step()
        update_average(self.average, self.model, config.ema, progress.step)
        return self._of_all((loss.item(), dense.item(), codes.item()))

    def loss_of(self, batch: Batch) -> Tensor:
        """Returns the loss of a batch as the last epoch computes it, for those who measure it; nothing is moved."""
        loss, _, _ = self._loss(batch, Moment(self.config.max_epochs, 1.0))
        return loss

    def _share_done(self) -> float:
        """Returns the share of the training that is over, by epochs or by time, whichever is further."""
        done = self.progress.step / (self.config.max_epochs * self._steps_an_epoch)
        end_s, prepared_s = self._limit.epochs_end_s, self.progress.prepared_seconds
        if end_s is not None:
            trained_s = self._limit.used_s - prepared_s
            done = max(done, trained_s / (end_s - prepared_s) if end_s > prepared_s else 1.0)
        return done

    def _finish_epoch(self, ndcg: float, losses: dict[str, float]) -> None:
        """Notes the epoch, keeps its weights if they are the best so far, and writes the checkpoint."""
        progress = self.progress
        progress.history.append({**losses, "valid_ndcg@10": ndcg, "seconds": progress.seconds})
        is_best = ndcg > progress.best_ndcg
        if is_best:
            progress.best_ndcg, progress.best_epoch = ndcg, progress.epoch
        progress.epoch += 1
        self._save(is_best=is_best)


def _epoch_seed(seed: int, epoch: int) -> int:
    """Returns a seed that differs for every (seed, epoch)."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> np.uint64(1))
