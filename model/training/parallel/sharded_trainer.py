"""The training with the item table in parts: each process has its rows, with their gradient, average and moments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import cast

import torch
from torch import Tensor

from model.errors import ConfigError, RunError
from model.network.gpt4rec import GPT4Rec
from model.network.item_rows import ItemParts
from model.training.batch_loss import BatchLoss
from model.training.checkpoint import Progress
from model.training.fitted_parts import FittedParts, build_network, first_item_vectors
from model.training.optimiser import is_in_parts, own_parts
from model.training.parallel.processes import Processes
from model.training.parallel.sharded_loss import ShardedLoss
from model.training.parallel.sharded_validation import gains_over_parts
from model.training.parallel.trainer import ParallelTrainer
from model.training.positions import Setup
from model.training.run_folder import BEST_NAME, CHECKPOINT_NAME
from model.training.sharded_files import Rows, Shards, write_index, write_shard
from model.training.trainer import MAX_QUESTIONS


class ShardedTrainer(ParallelTrainer):
    """A training that is one of several processes and has a part of the item table; see `ParallelTrainer`."""

    def _first_network(self, parts: FittedParts) -> GPT4Rec:
        c = parts.network
        item = ItemParts(c.n_items, c.d_model, self.device, self.config.seed)
        model = build_network(self.config, parts, self.learned, item)
        if self.config.item_init == "collaborative":
            item.start_from(self.processes.first_does(lambda: first_item_vectors(self.config, parts, self.learned)))
        self._start_alike(model)
        return model

    def _batch_loss(self, setup: Setup) -> BatchLoss:
        loss = ShardedLoss(self.model, setup.conditions, self.config, self.log_q, self.processes)
        if not loss.weights.negatives:
            raise ConfigError(
                f"shard_items needs the sampled softmax, and {self.network.n_items:,} items are few enough for the "
                "full one: set negatives, or leave out shard_items"
            )
        return loss

    def _move(self) -> None:
        """Moves the weights; the norm of the gradient is that of all parts together."""
        clip_over_parts(self.model, self.config.clip_norm, self.processes)
        self.optimiser.step()

    def _validated(self) -> float:
        gains = gains_over_parts(
            self.average, self.split, self.vocabulary, self.progress.questions or MAX_QUESTIONS, self.processes,
            exclude_history=not self.config.repeats,
        )  # fmt: skip
        return float(gains.mean()) if len(gains) else 0.0

    # -- checkpoints

    def _save(self, *, is_best: bool) -> None:
        """Every process writes its rows, the first one everything else; then it completes them."""
        if is_best:
            meta = {"epoch": self.progress.best_epoch, "ndcg@10": self.progress.best_ndcg}
            self._write(BEST_NAME, dict(self.average.state_dict()), meta)
        self._write(CHECKPOINT_NAME, self._state(), asdict(self.progress))

    def _write(self, name: str, state: Mapping[str, Tensor], meta: Mapping[str, object]) -> None:
        item, step = cast(ItemParts, self.model.item), self.progress.step
        own: dict[str, Tensor | Rows] = {}
        for key, tensor in state.items():
            if is_in_parts(tensor):
                own[key] = Rows(own_parts([tensor])[0], item.low, len(tensor))
            elif self.processes.is_first:
                own[key] = tensor
        part = (self.processes.rank, self.processes.world)
        shards = self.processes.gathered(write_shard(self.folder, name, step, part, own))
        self.processes.first_does(lambda: write_index(self.folder, name, shards, meta))

    def _load(self) -> Progress:
        """Reads what `_save` wrote, by however many processes; this one reads its rows alone.

        Raises:
            RunError: The checkpoint is missing, damaged or of another network.
        """
        shards, item = Shards.open(self.folder, CHECKPOINT_NAME), cast(ItemParts, self.model.item)
        self._start_moments()
        try:
            for key, tensor in self._state().items():
                into = own_parts([tensor])[0]
                given = shards.rows(key, item.low, item.high) if is_in_parts(tensor) else shards.rows(key)
                with torch.no_grad():
                    into.copy_(given)
            return Progress(**shards.meta)
        except (RuntimeError, TypeError) as error:
            if isinstance(error, RunError):
                raise
            raise RunError(
                f"the checkpoint belongs to another network: {error}", where=str(self.folder), fix="train again"
            ) from error

    def _state(self) -> dict[str, Tensor]:
        """Returns everything from which the next epoch follows, by name."""
        state = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        state |= {f"average.{name}": value for name, value in self.average.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            moments = self.optimiser.state.get(parameter, {})
            state |= {f"optimiser.{name}.{key}": value for key, value in moments.items()}
        return state

    def _start_moments(self) -> None:
        """Makes the optimiser's tensors, so that they can be read: a step whose gradients are zero moves nothing."""
        rates = [group["lr"] for group in self.optimiser.param_groups]
        for parameter in self.model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        for group in self.optimiser.param_groups:
            group["lr"] = 0.0
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        for group, rate in zip(self.optimiser.param_groups, rates, strict=True):
            group["lr"] = rate


def clip_over_parts(model: GPT4Rec, clip_norm: float, processes: Processes) -> None:
    """Adds up the gradients of all processes and scales them down to a norm, as `clip_grad_norm_` does.

    The gradient of a part of the item table is complete: looking rows up has added it up.
    """
    gradients = {p: p.grad for p in model.parameters() if p.grad is not None}
    whole = [gradient for p, gradient in gradients.items() if not is_in_parts(p)]
    parts = own_parts(gradient for p, gradient in gradients.items() if is_in_parts(p))
    processes.sum_gradients(whole)
    of_parts = processes.sum(torch.nn.utils.get_total_norm(parts) ** 2)
    norm = torch.sqrt(torch.nn.utils.get_total_norm(whole) ** 2 + of_parts)
    torch._foreach_mul_([*whole, *parts], (clip_norm / (norm + 1e-6)).clamp(max=1.0))
