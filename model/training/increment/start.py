"""What an increment starts from: a finished run, its memory, and the data with what is new in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model.data.dataset import Dataset
from model.data.split import Split
from model.errors import RunError
from model.network.gpt4rec import GPT4Rec
from model.signals import cold_items
from model.signals.cold_items import ColdItems
from model.training.content_vectors import content_vectors
from model.training.increment.joined_data import Joined, joined
from model.training.increment.memory import Memory, remember
from model.training.run_folder import Run
from model.training.trainer import Trainer
from service.artifact.array_types import FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class Start:
    """What an increment starts from.

    Attributes:
        run: The run that is gone on from.
        memory: What it left behind.
        data: Old and new events.
    """

    run: Run
    memory: Memory
    data: Joined

    @property
    def n_old(self) -> int:
        """Items that the run knows."""
        return len(self.memory.item_ids)


def start_from(folder: Path, new: Path, old: Path | None, out: Path) -> Start:
    """Opens a run to go on from.

    Args:
        folder: The run.
        new: Data set with old and new events, or with new ones alone where `old` is given.
        old: Data set that the run was trained on.
        out: Folder of the increment.

    Raises:
        RunError: The run is not finished or damaged, or the data does not fit it.
        DataError: A data set cannot be read.
    """
    run = Run.open(folder)
    if run.config.shard_items:
        raise RunError(
            "the run has its item table in parts, and an increment needs it whole",
            where=str(folder),
            fix="train a run without shard_items to go on from",
        )
    memory = Memory.load(folder) or _made_again(run, old)
    if len(memory.item_ids) != run.network.n_items:
        raise RunError(
            f"the memory of the run has {len(memory.item_ids):,} items, its network {run.network.n_items:,}",
            where=str(folder),
            fix="remove memory.safetensors, and it is made again from the data of the run",
        )
    return Start(run, memory, joined(run, memory.item_ids, new, old, out))


def _made_again(run: Run, old: Path | None) -> Memory:
    """Returns the memory of a run that has none, from its data."""
    if run.increment is not None:
        raise RunError(
            "the increment has no memory: it did not end", where=str(run.folder), fix="finish it with --resume"
        )
    dataset = run.dataset(old)
    trainer = Trainer(dataset, run.data_path(old), run.folder, run.config, resume=True)
    memory = remember(trainer, stand_ins(run, dataset, trainer.split, run.data_path(old)))
    memory.save(run.folder)
    return memory


def stand_ins(run: Run, dataset: Dataset, split: Split, data_path: Path) -> tuple[IntArray, FloatArray]:
    """Returns the items that others stand in for in the artefact of a run, and their vectors."""
    content = content_vectors(run.config, dataset, split.train.item_ids, data_path)
    return cold_vectors(run.model(), cold_items.find(split.train, dataset, content.all), kept_items(run))


def cold_vectors(model: GPT4Rec, cold: ColdItems, kept: int) -> tuple[IntArray, FloatArray]:
    """Returns the cold items whose vectors an artefact replaces, and the new vectors.

    Where texts are mixed into the embeddings, they stand in already.

    Args:
        model: The network.
        cold: The cold items.
        kept: The first so many items keep their vectors, because the states of the run before have read them.
    """
    table = model.item_table().detach().cpu().numpy()[:-2]
    which = np.flatnonzero(cold.items >= kept)
    if model.of_content is not None or not len(which):
        return np.zeros(0, np.int64), np.zeros((0, table.shape[1]), np.float32)
    return cold.items[which], cold.vectors(table)[which]


def kept_counts(run: Run) -> tuple[int, ...]:
    """Returns how many items the encoder of a run knew at each of its steps; more than one if it was kept."""
    return tuple(sorted({*_kept(run), run.network.n_items}))


def kept_items(run: Run) -> int:
    """Returns how many of the first items have the vectors of the run that this one goes on from, 0 if none have."""
    return max(_kept(run), default=0)


def _kept(run: Run) -> list[int]:
    """Returns the steps of the run that it goes on from, if it keeps the encoder."""
    return [] if run.increment is None else [int(count) for count in run.increment["kept"]]
