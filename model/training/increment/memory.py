"""What a training leaves behind for increments, in `memory.safetensors` of its run."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from model.data.split import time_boundaries
from model.errors import RunError
from model.training.batch_loss import BatchLoss
from model.training.increment.fisher import diagonal_fisher
from model.training.run_folder import Run, load_tensors, save_tensors
from model.training.trainer import Trainer
from service.artifact.array_types import FloatArray, IntArray

FORMAT = 1
MEMORY = "memory.safetensors"
# Batches from which the Fisher information is estimated.
BATCHES = 64


@dataclass(frozen=True, eq=False)
class Memory:
    """What an increment needs to know of the data that the run has learned.

    Attributes:
        item_ids: Ids of the items, in index order.
        fisher: Diagonal of the Fisher information, mean over the positions, by the name of the parameter.
        positions: Events that it stands for.
        new_from_ms: Time from which on events are new to the run.
        cold: [m] items without training events that other items stand in for.
        cold_vectors: [m, d] their vectors in the artefact.
    """

    item_ids: list[str]
    fisher: Mapping[str, Tensor]
    positions: int
    new_from_ms: int
    cold: IntArray
    cold_vectors: FloatArray

    def save(self, folder: Path) -> None:
        """Writes the memory into the folder of its run."""
        tensors = {f"fisher.{name}": value for name, value in self.fisher.items()}
        ids = np.frombuffer("\n".join(self.item_ids).encode(), np.uint8).copy()
        tensors |= {
            "items": torch.from_numpy(ids),
            "cold": torch.from_numpy(self.cold),
            "cold_vectors": torch.from_numpy(self.cold_vectors),
        }
        meta = {"format": FORMAT, "positions": self.positions, "new_from_ms": self.new_from_ms}
        save_tensors(folder / MEMORY, tensors, meta)

    @classmethod
    def load(cls, folder: Path) -> Memory | None:
        """Reads the memory of a run; None if it has none.

        Raises:
            RunError: The file is damaged or has another format.
        """
        if not (folder / MEMORY).exists():
            return None
        tensors, meta = load_tensors(folder / MEMORY)
        if meta.get("format") != FORMAT:
            raise RunError(
                f"the memory of the run has format {meta.get('format')}, this version reads {FORMAT}",
                where=str(folder / MEMORY),
                fix="remove the file, and it is made again from the data of the run",
            )
        fisher = {n.removeprefix("fisher."): t for n, t in tensors.items() if n.startswith("fisher.")}
        ids = tensors["items"].numpy().tobytes().decode().split("\n")
        return cls(
            ids, fisher, int(meta["positions"]), int(meta["new_from_ms"]),
            tensors["cold"].numpy(), tensors["cold_vectors"].numpy(),
        )  # fmt: skip


def remember(trainer: Trainer, cold: tuple[IntArray, FloatArray], before: Memory | None = None) -> Memory:
    """Makes the memory of a training that is over, from its best weights.

    Args:
        trainer: The training.
        cold: The items that others stand in for, and their vectors, as an export will have them.
        before: The memory that an increment began with, grown to its items: the Fisher information of all data so far
            is the mean of both, weighted by the events they stand for (Schwarz et al., 2018, without decay).
    """
    run = Run.open(trainer.folder)
    loss = BatchLoss(run.model().to(trainer.device), trainer.conditions, trainer.config, trainer.log_q)
    batches = itertools.islice(trainer.plan.batches(0, trainer.network.n_items + 1), BATCHES)
    fisher = diagonal_fisher(loss, batches, trainer.config.seed)
    positions = trainer.new_positions
    if before is not None:
        whole = before.positions + positions
        for name, value in fisher.items():
            old = before.fisher.get(name, torch.zeros_like(value))
            fisher[name] = (old * before.positions + value * positions) / max(whole, 1)
        positions = whole
    log = trainer.split.sequences
    return Memory(list(log.item_ids), fisher, positions, _new_from(trainer), *cold)


def _new_from(trainer: Trainer) -> int:
    """Returns the time from which on events are new: where the held-out part begins, or after the last event."""
    log, config = trainer.split.sequences, trainer.config
    if config.split == "time":
        return time_boundaries(log, config.valid_share, config.test_share)[0]
    return int(log.time_ms.max()) + 1
