"""A finished run on the first part of a small log, and the later events that increments learn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from model.data.dataset import Dataset, sequences
from model.training.config import TrainConfig
from model.training.increment.settings import IncrementSettings, increment_config
from model.training.increment.start import Start, start_from
from model.training.increment.trainer import IncrementTrainer, memory_of
from model.training.trainer import Trainer
from tests.support.data_builders import tiny_dataset

SETTINGS: dict[str, Any] = {
    "size": "tiny", "split": "time", "batch_tokens": 200, "learning_rate": 1e-2, "warmup_steps": 5, "max_epochs": 4,
    "max_length": 16, "network": {"dropout": 0.1},
}  # fmt: skip
# Items that only the later part of the log has, and one that has no event before it.
NEW_ITEMS = ("i3", "i7")
COLD_ITEM = "i11"


@dataclass(frozen=True)
class Grown:
    """The folders of a run and of its data.

    Attributes:
        run: The run on the old data, with its memory.
        old: Events of the first four fifths of the time, without `NEW_ITEMS` and `COLD_ITEM`.
        new: The other events alone.
        all: Both, with the items in another order.
    """

    run: Path
    old: Path
    new: Path
    all: Path

    def start(self, out: Path) -> Start:
        """Returns what an increment on all data starts from."""
        return start_from(self.run, self.all, None, out)

    def trainer(self, out: Path, settings: IncrementSettings, *assignments: str, **how: Any) -> IncrementTrainer:
        """Returns an increment on all data."""
        start = self.start(out)
        log = sequences(start.data.dataset)
        config = increment_config(start.run, log, start.memory.new_from_ms, None, assignments)
        return IncrementTrainer(start, out, config, settings, **how)


def with_events(dataset: Dataset, kept: pl.Expr, items: pl.Expr) -> Dataset:
    """Returns some of the events and items of a data set, with the users of the events."""
    events = dataset.events.filter(kept)
    users = dataset.users.filter(pl.col("user_id").is_in(events["user_id"].unique().implode()))
    return Dataset.of(
        "tiny", events, dataset.items.filter(items), users, has_time=True, category_kind=dataset.category_kind
    )


def grown(folder: Path, users: int = 60, settings: Mapping[str, Any] = SETTINGS) -> Grown:
    """Trains on the old part of a log."""
    whole = tiny_dataset(users=users)
    border = int(np.quantile(whole.events["timestamp"].to_numpy(), 0.8))
    earlier, fresh = pl.col("timestamp") < border, pl.col("item_id").is_in(NEW_ITEMS)
    cold = pl.col("item_id") == COLD_ITEM
    old = with_events(whole, earlier & ~fresh & ~cold, ~fresh)
    new = with_events(whole, ~earlier, pl.lit(value=True))
    both = with_events(whole, ~(earlier & (fresh | cold)), pl.lit(value=True))
    paths = Grown(folder / "run", folder / "old", folder / "new", folder / "all")
    for dataset, path in ((old, paths.old), (new, paths.new), (both, paths.all)):
        dataset.save(path)
    trainer = Trainer(old, paths.old, paths.run, TrainConfig(**settings))
    trainer.fit()
    memory_of(trainer, old, paths.old).save(paths.run)
    return paths
