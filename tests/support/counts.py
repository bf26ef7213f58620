"""The counts of a log as one machine makes them in memory: the reference of those that are made in parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from model.data.dataset import Dataset, sequences
from model.data.long_histories import ITEM_CF_EVENTS, newest
from model.data.split import choose_validation_users, leave_one_out, time_boundaries, time_split
from model.evaluation.baselines import fit_neighbours
from model.signals.counted.range_counts import SplitRule
from model.signals.shared_users import ItemTotals, Kind, shared, touched_items
from model.signals.transition_table import transition_counts, transition_table
from service.artifact.scorers.item_cf import ItemCF
from service.artifact.scorers.neighbour_table import NeighbourTable

TABLES = ("items", "pairs", "transitions", "split")


def counts_in_memory(dataset: Dataset, rule: SplitRule) -> dict[str, pl.DataFrame]:
    """Returns the tables of counts of a data set by the functions that a training uses."""
    log = sequences(dataset)
    n = rule.validation_users
    split = (
        time_split(log, *time_boundaries(log, rule.valid_share, rule.test_share))
        if rule.kind == "time"
        else leave_one_out(log, choose_validation_users(log.n_users) if n < 0 else n or None)
    )
    train, touched = newest(split.train, ITEM_CF_EVENTS), touched_items(split.train)
    totals, every = ItemTotals.of(touched), slice(0, log.n_items)
    users, weight = (shared(touched, every, weighted=weighted).tocoo() for weighted in (False, True))
    steps = transition_counts(train).tocoo()
    questions = [
        pl.DataFrame({"user": part.users, "history_end": part.history_end, "target": part.target}).select(
            pl.lit(name).alias("part"), pl.all()
        )
        for name, part in (("valid", split.valid), ("test", split.test))
    ]
    item = np.arange(log.n_items)
    pairs = pl.DataFrame({"item": users.row, "other": users.col, "users": users.data, "weight": weight.data})
    return {
        "items": pl.DataFrame(
            {
                "item": item,
                "item_id": log.item_ids,
                "events": np.bincount(split.train.item, minlength=log.n_items),
                "counted": np.bincount(train.item, minlength=log.n_items),
                "users": totals.users,
                "weight": totals.weight,
            }
        ),
        "pairs": pairs.filter(pl.col("item") != pl.col("other")).cast(pl.Int64),
        "transitions": pl.DataFrame({"item": steps.row, "next": steps.col, "weight": steps.data}).cast(pl.Int64),
        "split": pl.concat(questions),
    }


def read_counts(folder: Path) -> dict[str, pl.DataFrame]:
    """Returns the tables of a folder of counts."""
    return {name: pl.read_parquet(folder / f"{name}.parquet") for name in TABLES}


def same_tables(folder: Path, dataset: Dataset, kind: Kind = "cosine") -> None:
    """Checks that item-CF and the transitions of a folder are, bit for bit, those of a training by default."""
    log = sequences(dataset)
    split = leave_one_out(log, choose_validation_users(log.n_users))
    made = ItemCF.load(folder / "item_cf.npz")
    neighbour, similarity = fit_neighbours(split.train, kind, made.neighbour.shape[1])
    assert (made.neighbour == neighbour).all()
    assert (made.similarity == similarity).all()
    steps, path = transition_table(split.train), folder / "transitions.npz"
    assert (steps is not None) == path.exists()
    if steps is not None:
        of_parts = NeighbourTable.load(path)
        assert (of_parts.neighbour == steps.neighbour).all()
        assert (of_parts.similarity == steps.similarity).all()
