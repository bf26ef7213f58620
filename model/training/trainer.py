"""Training: joint loss, moving-average weights, early stopping on validation NDCG@10, checkpoints that resume.

An epoch is a function of the configuration, the data and the epoch's number: batches, dropout and context dropout are
seeded by (seed, epoch). So a run that is interrupted continues from its last finished epoch bit for bit on a CPU.
"""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.data.dataset import Dataset, sequences
from model.data.split import Split
from model.errors import RunError
from model.network.config import NetworkConfig
from model.network.gpt4rec import GPT4Rec
from model.texts.sentence_vectors import DIM, item_text_vectors
from model.tokenizers.loading import load_tokenizer
from model.tokenizers.semantic import collaborative_vectors
from model.training.allocator import keep_freed_memory
from model.training.batches import Batch, BatchPlan, cut
from model.training.conditions import Conditions, draw_loss_mask, fit_context, item_controls, type_shares
from model.training.config import TrainConfig
from model.training.defaults import resolve_defaults
from model.training.fit_tokenizer import fit_tokenizer
from model.training.losses import LossWeights, Sample, choose_negatives, draw_negatives, joint_loss, proposal
from model.training.masking import mask_events
from model.training.run_folder import Run, load_tensors, save_tensors, split_of, write_run_json
from model.training.validation import validation_ndcg
from service.artifact.features import EVENT_TYPES, ContextVocabulary, Vocabulary

# The learning rate never falls below this share of itself.
LEAST_RATE = 0.02
# Validation questions asked after an epoch.
MAX_QUESTIONS = 5000

CHECKPOINT = "checkpoint.safetensors"
BEST = "best.safetensors"


@dataclass
class Progress:
    """What a run has done so far; it travels with the checkpoint."""

    epoch: int = 0
    step: int = 0
    best_ndcg: float = -1.0
    best_epoch: int = -1
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Tick:
    """One reported moment: `done` of `total` batches of an epoch, the running loss, and the best metric so far."""

    epoch: int
    done: int
    total: int
    loss: float
    progress: Progress


Report = Callable[[Tick], None]


class Trainer:
    """A run in a folder. `fit` trains until it stops improving, or time or epochs are used up."""

    def __init__(
        self, dataset: Dataset, data_path: Path, folder: Path, config: TrainConfig, *, resume: bool = False
    ) -> None:
        """Prepares the run.

        Raises:
            RunError: The folder holds another run, none to resume, or a damaged one; or no user is held out.
        """
        self.folder = folder
        self.split: Split = split_of(config, sequences(dataset))
        config = self.config = resolve_defaults(config, self.split.train)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if not len(self.split.valid):
            raise RunError(
                "nobody is held out for validation: leave_one_out needs users with three events or more, time needs "
                "users who go on after the boundary"
            )
        self._claim(dataset, resume)
        train = self.split.train
        controls = item_controls(dataset, train.item_ids)
        self.context: ContextVocabulary = fit_context(dataset, train, controls)
        self.vocabulary = Vocabulary.of(train.item_ids, self.context, dataset.has_time)
        self.conditions = Conditions.of(dataset, train, self.context, controls)
        # A run that goes on has its texts in the tokenizer and in the weights.
        self.texts = None if config.text == "none" or resume else item_text_vectors(dataset, train.item_ids, data_path)
        self.tokenizer = load_tokenizer(folder) if resume else fit_tokenizer(config, dataset, train, self.texts)
        self.network = NetworkConfig(
            n_items=train.n_items,
            code_sizes=self.tokenizer.code_sizes,
            n_types=len(EVENT_TYPES),
            n_context_rows=self.context.n_rows,
            n_slots=len(self.context.slots),
            has_time=dataset.has_time,
            encoder=config.encoder,
            n_fields=len(self.context.fields),
            content=DIM if config.text == "items" else 0,
            **config.network_values(),
        )
        torch.manual_seed(config.seed)
        self.model = GPT4Rec(self.network, torch.from_numpy(self.tokenizer.codes)).to(self.device)
        if self.model.of_content is not None and self.texts is not None:
            seen = torch.from_numpy(np.bincount(train.item, minlength=train.n_items))
            self.model.of_content.set_content(torch.from_numpy(self.texts), seen)
        if config.item_init == "collaborative":
            vectors = collaborative_vectors(train.item, train.offsets, train.n_items, self.network.d_model, config.seed)
            self.model.init_item_embeddings(torch.from_numpy(vectors))
        self.average = copy.deepcopy(self.model).eval()
        self.optimiser = self._optimiser()
        cuts = type(self.model.encoder).cuts(self.network, config.max_length)
        self.plan = BatchPlan(cut(train, *cuts), config.batch_tokens, config.seed)
        self.weights = LossWeights(
            config.codes_weight,
            config.dense_weight,
            choose_negatives(config.negatives, train.n_items),
            config.label_smoothing,
        )
        self.type_shares = type_shares(config.type_weights)
        self._steps_an_epoch = len(self.plan.epoch(0))
        self._ends: tuple[float, float] | None = None  # of the training, by the monotonic clock, where time is bounded
        self.progress = Progress()
        if resume:
            self._restore()
        else:
            self.tokenizer.save(folder)
            config.save(folder / "config.json")
            write_run_json(folder, dataset, data_path, self.network, self.context)
        gate = self.model.of_content
        among = np.ones(train.n_items, bool) if gate is None else ~gate.unseen_with_content.cpu().numpy()
        self.log_q = proposal(train.item, among).to(self.device)

    def fit(self, *, max_minutes: float | None = None, report: Report | None = None) -> Progress:
        """Train. The best epoch's weights are in `best.safetensors` whenever an epoch has finished.

        Raises RunError where the loss is no longer finite; the last finished epoch is kept.
        """
        from torch.utils.tensorboard import SummaryWriter

        p, config = self.progress, self.config
        # The operators are small: a second thread gains nothing at the default size, and how sums are split among
        # threads is not the same from run to run.
        torch.set_num_threads(config.threads or os.cpu_count() or 1)
        keep_freed_memory()
        started = time.monotonic() - p.seconds
        self._ends = None if max_minutes is None else (started, started + max_minutes * 60)
        with SummaryWriter(str(self.folder / "tensorboard")) as board:
            while p.epoch < config.max_epochs and p.epoch - p.best_epoch <= config.patience:
                if max_minutes is not None and p.seconds >= max_minutes * 60:
                    break
                losses = self.train_epoch(report)
                ndcg = validation_ndcg(
                    self.average, self.split, self.vocabulary, MAX_QUESTIONS, exclude_history=not config.repeats
                )
                p.seconds = time.monotonic() - started
                self._finish_epoch(ndcg, losses)
                for name, value in p.history[-1].items():
                    board.add_scalar(name, value, p.epoch)
        return p

    def train_epoch(self, report: Report | None = None) -> dict[str, float]:
        """One pass over the batches; stops early where the time is up (that epoch counts, shorter)."""
        config, p = self.config, self.progress
        torch.manual_seed(_epoch_seed(config.seed, p.epoch))
        self.model.train()
        total = len(self.plan.epoch(p.epoch))
        sums = np.zeros(3)
        done = 0
        for batch in self.plan.batches(p.epoch, self.network.n_items + 1):
            sums += self._step(batch)
            done += 1
            if not np.isfinite(sums[0]):
                raise RunError(
                    f"the loss is not finite in epoch {p.epoch + 1}, batch {done} of {total}; lower learning_rate "
                    f"({config.learning_rate:g}) or clip_norm ({config.clip_norm:g})"
                )
            if report is not None:
                report(Tick(p.epoch, done, total, sums[0] / done, p))
            if self._ends is not None and time.monotonic() > self._ends[1]:
                break
        return dict(zip(("loss", "loss_dense", "loss_codes"), (sums / max(done, 1)).tolist(), strict=True))

    def _step(self, batch: Batch) -> tuple[float, float, float]:
        config, p = self.config, self.progress
        p.step += 1
        for group in self.optimiser.param_groups:
            group["lr"] = config.learning_rate * min(1.0, p.step / max(config.warmup_steps, 1)) * self._decay()
        loss, dense, codes = self._loss(batch)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.clip_norm)
        self.optimiser.step()
        self._update_average()
        return loss.item(), dense.item(), codes.item()

    def _decay(self) -> float:
        """What is left of the learning rate: it falls in a line to nothing by the last epoch, or the last minute."""
        if self.config.decay == "none":
            return 1.0
        done = self.progress.step / (self.config.max_epochs * self._steps_an_epoch)
        if self._ends is not None:
            began, ends = self._ends
            done = max(done, (time.monotonic() - began) / (ends - began))
        return max(LEAST_RATE, 1.0 - done)

    def _loss(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        config, model = self.config, self.model
        if model.encoder.task == "masked":
            batch = mask_events(batch)
        item = batch.item
        if config.item_dropout > 0:
            hidden = (torch.rand(item.shape) < config.item_dropout) & (item < self.network.n_items)
            item = torch.where(hidden, self.network.n_items, item)
        has_target = (batch.target >= 0) & draw_loss_mask(batch.target_type, self.type_shares)
        target = batch.target[has_target]
        user = batch.user[:, None].expand_as(item)[has_target]
        gap_ms, scene = batch.gap_ms[has_target], batch.scene[has_target]
        context, gap = self.conditions.sample(config, user, target, gap_ms, scene)
        of_users = (
            self.conditions.sample_features(config, batch.user).to(self.device) if model.encoder.reads_context else None
        )
        move = self.device
        item, target = item.to(move), target.to(move)
        sample = None
        if self.weights.negatives:
            sample = Sample.of(item, target, draw_negatives(self.log_q, self.weights.negatives), self.network.n_items)
            item = sample.place[item]
        with torch.autocast(move.type, torch.bfloat16, enabled=move.type == "cuda"):
            table = model.item_table(None if sample is None else sample.rows)
            places = {name: value.to(move) for name, value in batch.masking.items()}
            h = model(item, batch.type.to(move), batch.time_ms.to(move), table, context=of_users, **places)
            q = model.query(h[has_target.to(move)], context.to(move), gap.to(move))
            return joint_loss(model, q, table, target, self.weights, self.log_q, sample)

    @torch.no_grad()
    def _update_average(self) -> None:
        # Early on the average follows closely, so that it does not carry the initial weights along.
        step = self.progress.step
        keep = min(self.config.ema, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), 1 - keep)

    def _finish_epoch(self, ndcg: float, losses: dict[str, float]) -> None:
        p = self.progress
        p.history.append({**losses, "valid_ndcg@10": ndcg, "seconds": p.seconds})
        if ndcg > p.best_ndcg:
            p.best_ndcg, p.best_epoch = ndcg, p.epoch
            save_tensors(self.folder / BEST, self.average.state_dict(), {"epoch": p.epoch, "ndcg@10": ndcg})
        p.epoch += 1
        self._checkpoint()

    def _checkpoint(self) -> None:
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.state_dict().items()}
        for number, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{number}.{name}": value for name, value in state.items()}
        save_tensors(self.folder / CHECKPOINT, tensors, asdict(self.progress))

    def _restore(self) -> None:
        tensors, meta = load_tensors(self.folder / CHECKPOINT)

        def under(prefix: str) -> dict[str, Tensor]:
            return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}

        self.model.load_state_dict(under("model."))
        self.average.load_state_dict(under("average."))
        state: dict[int, dict[str, Any]] = {}
        for name, tensor in under("optimiser.").items():
            number, _, key = name.partition(".")
            state.setdefault(int(number), {})[key] = tensor
        self.optimiser.load_state_dict(self.optimiser.state_dict() | {"state": state})
        self.progress = Progress(**meta)

    def _claim(self, dataset: Dataset, resume: bool) -> None:
        """The folder is ours: empty, or holding the run to resume with the same configuration."""
        has_run = (self.folder / CHECKPOINT).exists()
        if resume and not has_run:
            raise RunError(f"{self.folder} holds no finished epoch to resume; train without --resume")
        if resume:
            run = Run.open(self.folder)
            if run.config != self.config:
                raise RunError(f"{self.folder} was trained with another configuration; resume with the same one")
            if run.data["fingerprint"] != dataset.fingerprint:
                raise RunError(
                    f"{self.folder} was trained on other data ({run.data['name']}, {run.data['events']:,} events; "
                    "fingerprints differ); train into another folder"
                )
        elif has_run:
            raise RunError(f"{self.folder} already holds a run; add --resume to continue it, or name another --out")
        self.folder.mkdir(parents=True, exist_ok=True)

    def _optimiser(self) -> torch.optim.AdamW:
        """Weight decay for matrices only: norms, biases and decay rates are left alone."""
        matrices = [p for p in self.model.parameters() if p.ndim > 1]
        vectors = [p for p in self.model.parameters() if p.ndim <= 1]
        groups = [
            {"params": matrices, "weight_decay": self.config.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.config.learning_rate, betas=(0.9, 0.98), fused=True)


def _epoch_seed(seed: int, epoch: int) -> int:
    """Distinct for every (seed, epoch)."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> np.uint64(1))
