"""The data of the forgetting table: old and new events, and the questions that no method trains on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from model.data.dataset import Dataset, Sequences
from model.data.split import Holdout, Split
from model.training.config import TrainConfig
from model.training.run_folder import split_of

# Users that are asked an old question.
OLD_QUESTIONS = 2000
# Fewest events of such a user before the one that is asked for.
LEAST_HISTORY = 3


@dataclass(frozen=True)
class Parts:
    """Old and new events.

    Attributes:
        old: Events before the new ones, with the items that they know.
        all: Old and new events.
        asked: Old questions: `user_id` and `item_id` of events that are in neither.
    """

    old: Dataset
    all: Dataset
    asked: pl.DataFrame


def parts_of(dataset: Dataset, new: float, seed: int) -> Parts:
    """Takes old questions out of a log, and splits the rest by time.

    Args:
        dataset: The log.
        new: Share of its events that are new.
        seed: Seed of the choice of old questions.
    """
    events = dataset.events.with_row_index("row")
    border = int(np.quantile(events["timestamp"].to_numpy(), 1 - new))
    of_user = events.group_by("user_id").agg(last=pl.col("timestamp").max(), count=pl.len(), row=pl.col("row").last())
    gone = of_user.filter((pl.col("last") < border) & (pl.col("count") > LEAST_HISTORY)).sort("user_id")
    chosen = gone.sample(min(OLD_QUESTIONS, len(gone)), seed=seed)
    out = events.filter(pl.col("row").is_in(chosen["row"].implode()))
    kept = events.filter(~pl.col("row").is_in(chosen["row"].implode())).drop("row")
    old = kept.filter(pl.col("timestamp") < border)
    known = pl.col("item_id").is_in(old["item_id"].unique().implode())
    return Parts(_part(dataset, old, known), _part(dataset, kept, None), out.select("user_id", "item_id"))


def _part(dataset: Dataset, events: pl.DataFrame, items: pl.Expr | None) -> Dataset:
    users = dataset.users.filter(pl.col("user_id").is_in(events["user_id"].unique().implode()))
    catalogue = dataset.items if items is None else dataset.items.filter(items)
    return Dataset.of(
        dataset.name, events, catalogue, users, has_time=True, category_kind=dataset.category_kind,
        source=dataset.source,
    )  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """The questions, over the log of all events.

    Attributes:
        log: Old and new events.
        old: Old questions; their histories are all events of their users.
        new: New questions.
    """

    log: Sequences
    old: Holdout
    new: Holdout

    def splits(self) -> tuple[Split, Split]:
        """Returns the old and the new questions, each as the validation part of a split."""
        old, new = (Split("time", self.log, self.log, part, part) for part in (self.old, self.new))
        return old, new


def questions_of(parts: Parts, log: Sequences, config: TrainConfig) -> Asked:
    """Returns the old questions, and the test part of the increments as the new ones."""
    user = {name: row for row, name in enumerate(log.user_ids)}
    item = {name: row for row, name in enumerate(log.item_ids)}
    pairs = [(user[u], item[i]) for u, i in parts.asked.iter_rows() if u in user and i in item]
    users, targets = np.array(pairs, np.int64).reshape(-1, 2).T
    return Asked(log, Holdout(users, log.offsets[users + 1], targets), split_of(config, log).test)
