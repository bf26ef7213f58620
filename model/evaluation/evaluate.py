"""Full-catalogue evaluation of several systems on the same users.

The protocol is that of the published tables: every item of the catalogue is ranked, the items of the user's
own history are taken out, one held-out item is looked for, and no system knows the time of that event.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import sparse

from model.data.dataset import Sequences as Log
from model.data.split import Split
from model.evaluation import metrics
from model.evaluation.bootstrap import CONFIDENCE, SAMPLES, paired_bootstrap
from model.evaluation.report import Comparison, Evaluation, SystemResult
from service.artifact.array_types import Float64Array, IntArray
from service.artifact.features import EventArrays
from service.artifact.item_cf import ItemCF, Popularity
from service.artifact.repeat_purchase import Repeat

Part = Literal["test", "valid"]

DEPTH = max(metrics.KS)
COMPARED: tuple[str, ...] = ("recall@10", "ndcg@10", "mrr@10")


@dataclass(frozen=True, eq=False)
class Histories:
    """A batch of questions: whose next item is asked for, and what they did so far.

    `users` [batch] are rows of the log's users, `_end` [batch] the rows of its flat arrays where the
    histories stop. The log holds the answers too, so it is reached through the methods alone, oldest event
    first. With `exclude_history` no item of its history belongs in a list.
    """

    users: IntArray
    _end: IntArray
    _log: Log
    exclude_history: bool = True

    def __len__(self) -> int:
        return len(self.users)

    @property
    def n_items(self) -> int:
        return self._log.n_items

    def user_id(self, i: int) -> str:
        return self._log.user_ids[int(self.users[i])]

    def items(self, i: int) -> IntArray:
        """[events] item indices of history i."""
        return self._log.item[self._rows(i)]

    def events(self, i: int) -> EventArrays:
        """History i as the encoder takes it."""
        rows = self._rows(i)
        return EventArrays(self._log.item[rows], self._log.type[rows], self._log.time_ms[rows])

    def excluded(self, i: int) -> IntArray:
        """The distinct items that may not be in list i."""
        return np.unique(self.items(i)) if self.exclude_history else np.zeros(0, np.int64)

    def _rows(self, i: int) -> slice:
        return slice(int(self._log.offsets[self.users[i]]), int(self._end[i]))


# Gives [batch, DEPTH] int64 item indices, the best first, padded with -1 at the end.
Ranker = Callable[[Histories], IntArray]


def item_cf_ranker(item_cf: ItemCF, popularity: Popularity, depth: int = DEPTH) -> Ranker:
    """Item-CF completed with popularity: the very call the service makes, one history after the other."""

    def rank(histories: Histories) -> IntArray:
        lists = np.full((len(histories), depth), -1, np.int64)
        for i in range(len(histories)):
            excluded = histories.excluded(i)
            found = item_cf.recommend(histories.items(i), depth, None, excluded)
            items, _ = popularity.fill(*found, depth, None, excluded)
            lists[i, : len(items)] = items
        return lists

    return rank


def popularity_ranker(popularity: Popularity, depth: int = DEPTH) -> Ranker:
    """The most popular items outside the history."""

    def rank(histories: Histories) -> IntArray:
        lists = np.full((len(histories), depth), -1, np.int64)
        for i in range(len(histories)):
            items, _ = popularity.recommend(depth, None, histories.excluded(i))
            lists[i, : len(items)] = items
        return lists

    return rank


def repeat_ranker(repeat: Repeat, popularity: Popularity, depth: int = DEPTH) -> Ranker:
    """The user's own items again, completed with popularity: a question for lists that keep the history's items."""

    def rank(histories: Histories) -> IntArray:
        lists = np.full((len(histories), depth), -1, np.int64)
        for i in range(len(histories)):
            excluded = histories.excluded(i)
            found = repeat.recommend(histories.items(i), depth, None, excluded)
            items, _ = popularity.fill(*found, depth, None, excluded)
            lists[i, : len(items)] = items
        return lists

    return rank


def evaluate(
    systems: Mapping[str, Ranker],
    split: Split,
    part: Part = "test",
    *,
    content: sparse.csr_array | None = None,
    exclude_history: bool = True,
    batch: int = 512,
    samples: int = SAMPLES,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> Evaluation:
    """Ask every system for the lists of every user of a hold-out part and measure them.

    content:  [items, features] as `metrics.item_content` makes it, for the diversity; None leaves that out
    progress: called with (system, users done, users in all) after each batch

    The first system is compared with each of the others by a paired bootstrap of `samples` resamplings.
    Raises ValueError where a system returns a list that breaks the protocol, or where there is nobody to ask.
    """
    questions = split.test if part == "test" else split.valid
    log = split.sequences
    if not len(questions):
        raise ValueError(f"the {part} part holds no user")
    information = metrics.self_information(split.train.item, log.n_items)
    results: dict[str, SystemResult] = {}
    for name, ranker in systems.items():
        lists = np.full((len(questions), DEPTH), -1, np.int64)
        for at in range(0, len(questions), batch):
            rows = slice(at, min(at + batch, len(questions)))
            asked = Histories(questions.users[rows], questions.history_end[rows], log, exclude_history)
            lists[rows] = _checked(name, ranker(asked), asked)
            if progress is not None:
                progress(name, rows.stop, len(questions))
        results[name] = _measure(lists, questions.target, information, content, log.n_items)
    return Evaluation(
        split=part,
        users=len(questions),
        protocol=_protocol(split, exclude_history),
        systems=results,
        comparisons=_compare(results, samples, seed),
    )


def _protocol(split: Split, exclude_history: bool) -> str:
    taken_out = "items of the history removed" if exclude_history else "items of the history kept"
    kind = "leave one out" if split.kind == "leave_one_out" else "split by time"
    return f"{kind}; whole catalogue ({split.sequences.n_items} items); {taken_out}; gap to now unknown"


def _measure(
    lists: IntArray,
    targets: IntArray,
    information: Float64Array,
    content: sparse.csr_array | None,
    n_items: int,
) -> SystemResult:
    ranks = metrics.target_ranks(lists, targets)
    per_user: dict[str, Float64Array] = {}
    for k in metrics.KS:
        per_user[f"recall@{k}"] = metrics.recall(ranks, k)
        per_user[f"ndcg@{k}"] = metrics.ndcg(ranks, k)
        per_user[f"mrr@{k}"] = metrics.mrr(ranks, k)
        per_user[f"novelty@{k}"] = metrics.novelty(lists, k, information)
        if content is not None:
            per_user[f"diversity@{k}"] = metrics.diversity(lists, k, content)
    figures = {name: metrics.mean(values) for name, values in per_user.items()}
    figures |= {f"coverage@{k}": metrics.coverage(lists, k, n_items) for k in metrics.KS}
    return SystemResult(figures, per_user, lists)


def _compare(results: Mapping[str, SystemResult], samples: int, seed: int) -> tuple[Comparison, ...]:
    names: Sequence[str] = list(results)
    return tuple(
        Comparison(
            metric=metric,
            system=names[0],
            baseline=other,
            interval=paired_bootstrap(
                results[names[0]].per_user[metric], results[other].per_user[metric], samples, seed
            ),
            confidence=CONFIDENCE,
            samples=samples,
        )
        for other in names[1:]
        for metric in COMPARED
    )


def _checked(name: str, lists: IntArray, asked: Histories) -> IntArray:
    """The lists, or ValueError where they are not what a `Ranker` promises: a metric over a broken list would
    be a wrong figure without an error."""
    if lists.shape != (len(asked), DEPTH) or not np.issubdtype(lists.dtype, np.integer):
        raise ValueError(f"{name} returned {lists.dtype} {lists.shape}, not integers {(len(asked), DEPTH)}")
    if ((lists < -1) | (lists >= asked.n_items)).any():
        raise ValueError(f"{name} returned an item outside the catalogue")
    if ((lists[:, 1:] >= 0) & (lists[:, :-1] < 0)).any():
        raise ValueError(f"{name} returned a list with a hole")
    ordered = np.sort(lists, axis=1)
    if ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any():
        raise ValueError(f"{name} returned an item twice in one list")
    if asked.exclude_history:
        for i, row in enumerate(lists):
            if np.isin(row, asked.items(i)).any():
                raise ValueError(f"{name} returned an item of the user's own history")
    return lists.astype(np.int64)
