"""The baselines that models are compared with, which are also the fallback rungs of the service.

Item-CF has the similarities of `implicit`, made of integers (`model.signals.shared_users`). The kind of similarity, the
recency weight and the number of neighbours are chosen on the validation part, so that a model is compared with a
baseline at its best. Only `Split.train` is fitted on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from model.data.dataset import Sequences
from model.data.long_histories import REPEAT_EVENTS
from model.data.split import Holdout, Split
from model.evaluation.metrics import NOT_RANKED, ndcg, target_ranks
from model.signals.neighbour_rows import matrix_of
from model.signals.shared_users import KINDS, ItemTotals, Kind, neighbour_table, shared_rows, touched_items
from service.artifact.array_types import IntArray
from service.artifact.scorers.item_cf import ItemCF
from service.artifact.scorers.neighbour_table import DEFAULT_HORIZON
from service.artifact.scorers.popularity import Popularity
from service.artifact.scorers.repeat_purchase import Repeat

Progress = Callable[[int, int], None]  # (candidates tried, candidates in all)

DECAYS: tuple[float, ...] = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.3)
NEIGHBOURS: tuple[int, ...] = (50, 100, 200)
REPEAT_DECAYS: tuple[float, ...] = (1.0, 0.999, 0.998, 0.995, 0.99, 0.98, 0.95, 0.9)

# Validation questions; more would only cost time.
MAX_QUESTIONS = 10_000

# Questions scored at once; bounds the memory of the sparse product.
_BATCH = 4096

# An event whose weight relative to the newest one is smaller is left out of the sum.
_LEAST_WEIGHT = 1e-3


@dataclass(frozen=True, slots=True)
class ItemCFConfig:
    """Hyper-parameters of item-CF.

    Attributes:
        kind: Kind of similarity.
        neighbours: Neighbours kept for each item.
        decay: Weight of an event relative to the one after it.
    """

    kind: Kind
    neighbours: int
    decay: float

    @property
    def horizon(self) -> int:
        """Number of newest events that have any weight, at most `DEFAULT_HORIZON`."""
        if self.decay == 1:
            return DEFAULT_HORIZON
        return min(DEFAULT_HORIZON, int(np.ceil(np.log(_LEAST_WEIGHT) / np.log(self.decay))))

    def to_json(self) -> dict[str, Any]:
        """Returns the fields and the horizon, for the artefact's manifest."""
        return asdict(self) | {"horizon": self.horizon}


@dataclass(frozen=True, slots=True)
class Trial:
    """A configuration that was tried, with its NDCG@10 on the validation part."""

    config: ItemCFConfig
    ndcg_at_10: float


@dataclass(frozen=True, slots=True)
class Baselines:
    """The fitted scorers, the chosen configuration of item-CF, and every configuration that was tried."""

    CANDIDATES = len(KINDS) * len(DECAYS) + len(NEIGHBOURS) - 1

    item_cf: ItemCF
    popularity: Popularity
    config: ItemCFConfig
    trials: tuple[Trial, ...]


def fit_baselines(
    split: Split, progress: Progress | None = None, exclude_history: bool = True, deadline: float | None = None
) -> Baselines:
    """Tunes item-CF on the validation part of a split and fits item-CF and popularity on its training part.

    Deterministic. The search goes along one axis after the other: kind and decay at the middle number of neighbours,
    then the number of neighbours. Among equal trials the earlier one wins.

    Args:
        split: Training and validation part.
        progress: Called with (candidates tried, candidates in all) after each trial.
        exclude_history: Whether items of a user's history are left out of the ranking.
        deadline: No candidate is tried after this time of the monotonic clock, except the first.
    """
    most = max(NEIGHBOURS)
    tables: dict[Kind, tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]] = {}
    questions = split.valid.sample(MAX_QUESTIONS)
    middle = sorted(NEIGHBOURS)[len(NEIGHBOURS) // 2]
    trials: list[Trial] = []
    total = Baselines.CANDIDATES

    def attempt(config: ItemCFConfig) -> None:
        if trials and deadline is not None and time.monotonic() > deadline:
            return
        if config.kind not in tables:
            tables[config.kind] = fit_neighbours(split.train, config.kind, most)
        model = _item_cf(*tables[config.kind], config)
        trials.append(Trial(config, _ndcg_at_10(model, split.sequences, questions, exclude_history)))
        if progress is not None:
            progress(len(trials), total)

    def best() -> ItemCFConfig:
        return max(trials, key=lambda trial: trial.ndcg_at_10).config

    for kind in KINDS:
        for decay in DECAYS:
            attempt(ItemCFConfig(kind, middle, decay))
    chosen = best()
    for neighbours in NEIGHBOURS:
        if neighbours != middle:
            attempt(ItemCFConfig(chosen.kind, neighbours, chosen.decay))
    chosen = best()
    popularity = Popularity.fit(split.train.item, split.train.n_items)
    return Baselines(_item_cf(*tables[chosen.kind], chosen), popularity, chosen, tuple(trials))


def fit_item_cf(train: Sequences, config: ItemCFConfig) -> ItemCF:
    """Fits item-CF with a given configuration."""
    return _item_cf(*fit_neighbours(train, config.kind, config.neighbours), config)


def fit_neighbours(
    train: Sequences, kind: Kind, neighbours: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Finds the most similar items of each item.

    Two items are similar when the same users have events with them; how many events a user has with an item does not
    count. Of a user with more than `ITEM_CF_EVENTS` events the newest are counted.

    Returns:
        Neighbours and similarities, [items, ≤ neighbours] each, as `ItemCF` stores them.
    """
    touched = touched_items(train)
    return neighbour_table(kind, neighbours, ItemTotals.of(touched), shared_rows(touched, kind))


def fit_repeat(split: Split) -> Repeat:
    """Fits repeat purchase: the decay with the best validation NDCG@10, on a tie the one nearer to 1."""
    questions = split.valid.sample(MAX_QUESTIONS)
    ndcgs = [_repeat_ndcg(Repeat(split.train.n_items, decay), split, questions) for decay in REPEAT_DECAYS]
    return Repeat(split.train.n_items, REPEAT_DECAYS[int(np.argmax(ndcgs))])


def _repeat_ndcg(model: Repeat, split: Split, questions: Holdout) -> float:
    lists = np.full((len(questions), 10), -1, np.int64)
    for i in range(len(questions)):
        items, _ = model.recommend(split.sequences.item[split.history(questions, i)][-REPEAT_EVENTS:], 10)
        lists[i, : len(items)] = items
    return float(ndcg(target_ranks(lists, questions.target), 10).mean()) if len(questions) else 0.0


def _item_cf(neighbour: npt.NDArray[np.int32], similarity: npt.NDArray[np.float32], config: ItemCFConfig) -> ItemCF:
    width = config.neighbours
    return ItemCF(
        np.ascontiguousarray(neighbour[:, :width]),
        np.ascontiguousarray(similarity[:, :width]),
        config.decay,
        config.horizon,
    )


def _ndcg_at_10(model: ItemCF, seqs: Sequences, questions: Holdout, exclude_history: bool) -> float:
    if not len(questions):
        return 0.0
    parts = [
        item_cf_ranks(model, seqs, questions.rows(slice(start, start + _BATCH)), exclude_history)
        for start in range(0, len(questions), _BATCH)
    ]
    return float(ndcg(np.concatenate(parts), 10).mean())


def item_cf_ranks(model: ItemCF, seqs: Sequences, questions: Holdout, exclude_history: bool = True) -> IntArray:
    """Returns the 0-based ranks [questions] of the targets in item-CF's full lists.

    `NOT_RANKED` where no event of the history leads to the target. The ranks equal those of `ItemCF.recommend` user by
    user; one sparse product computes them fast enough to try many configurations.
    """
    start = seqs.offsets[questions.users]
    rows, items, age = _events(seqs, start, questions.history_end)
    shape = (len(questions), model.n_items)
    recent = age < model.horizon
    weights = sparse.csr_array((model.decay ** age[recent], (rows[recent], items[recent])), shape=shape)
    scores = weights @ matrix_of(model)
    target = questions.target
    target_score = np.asarray(scores[np.arange(len(target)), target]).ravel().astype(np.float32)
    ranks = _before(scores, target_score, target)
    if exclude_history:
        seen = sparse.csr_array((np.ones(len(rows)), (rows, items)), shape=shape) > 0
        ranks -= _before(scores * seen, target_score, target)
        target_score[np.asarray(seen[np.arange(len(target)), target]).ravel()] = 0
    return np.where(target_score > 0, ranks, NOT_RANKED)


def _events(seqs: Sequences, start: IntArray, end: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Returns the events of many histories, flat: (question, item, age); the newest event of a history has age 0."""
    length = end - start
    rows = np.repeat(np.arange(len(start)), length)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(length) - length, length)
    return rows, seqs.item[start[rows] + within], length[rows] - 1 - within


def _before(scores: sparse.csr_array, target_score: npt.NDArray[np.float32], target: IntArray) -> IntArray:
    """Counts the stored items [rows] that rank before the target: a higher score, or the same and a lower index."""
    scores = scores.tocsr()
    row = np.repeat(np.arange(len(target)), np.diff(scores.indptr))
    value = scores.data.astype(np.float32)
    before = (value > target_score[row]) | ((value == target_score[row]) & (scores.indices < target[row]))
    return np.bincount(row[before], minlength=len(target)).astype(np.int64)
