"""Scorers of a data set as an evaluation opens them; other processes import this module alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from model.data.dataset import Dataset, sequences
from model.data.split import leave_one_out
from model.evaluation.baselines import ItemCFConfig, fit_item_cf
from model.evaluation.evaluate import item_cf_ranker
from model.evaluation.sharded import Opened, systems_of
from service.artifact.scorers.popularity import Popularity


@dataclass(frozen=True)
class ScorersOf:
    """Opens a data set with scorers that are fitted in each process."""

    folder: Path

    def open(self) -> Opened:
        dataset = Dataset.load(self.folder)
        split = leave_one_out(sequences(dataset))
        popularity = Popularity.fit(split.train.item, split.train.n_items)
        cosine, bm25 = (fit_item_cf(split.train, ItemCFConfig(kind, 20, 0.7)) for kind in ("cosine", "bm25"))
        return Opened(dataset, split, systems_of(item_cf_ranker(bm25, popularity), cosine, popularity), True)
