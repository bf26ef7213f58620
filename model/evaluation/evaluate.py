"""Full-catalogue evaluation of several systems on the same users.

The protocol is that of the published tables: every item of the catalogue is ranked, the items of the user's own history
are taken out, one held-out item is the target, and no system knows the time of that event.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import sparse

from model.data.dataset import Sequences as Log
from model.data.query_histories import history_events
from model.data.split import Holdout, Split
from model.evaluation import metrics
from model.evaluation.bootstrap import CONFIDENCE, SAMPLES, paired_bootstrap
from model.evaluation.question_facts import question_facts
from model.evaluation.report import Comparison, Evaluation, SystemResult
from service.artifact.array_types import Float64Array, IntArray
from service.artifact.features import EventArrays, Vocabulary
from service.artifact.scorers.item_cf import ItemCF
from service.artifact.scorers.popularity import Popularity
from service.artifact.scorers.repeat_purchase import Repeat

Part = Literal["test", "valid"]

DEPTH = max(metrics.KS)
# Users ranked at once.
BATCH = 512
COMPARED: tuple[str, ...] = ("recall@10", "ndcg@10", "mrr@10")


@dataclass(frozen=True, eq=False)
class Histories:
    """A batch of questions: users whose next item is predicted, and their histories.

    The log also holds the answers, so rankers reach it only through the methods, which return the oldest event first.

    Attributes:
        users: [batch] rows of the log's users.
        exclude_history: Whether lists must not contain items of the user's history.
    """

    users: IntArray
    _end: IntArray  # [batch] index in the log's flat arrays where each history stops
    _log: Log
    exclude_history: bool = True

    def __len__(self) -> int:
        return len(self.users)

    @property
    def n_items(self) -> int:
        """Size of the catalogue."""
        return self._log.n_items

    def user_id(self, i: int) -> str:
        """Returns the id of user i."""
        return self._log.user_ids[int(self.users[i])]

    def items(self, i: int) -> IntArray:
        """Returns the item indices [events] of history i."""
        return self._log.item[self._rows(i)]

    def events(self, i: int, vocabulary: Vocabulary | None = None) -> EventArrays:
        """Returns history i as event arrays.

        Args:
            i: The history.
            vocabulary: That of the network that reads it, which gets the searches too if it reads queries; None for the
                events of items alone.
        """
        if vocabulary is not None:
            return history_events(self._log, int(self.users[i]), int(self._end[i]), vocabulary)
        rows = self._rows(i)
        return EventArrays(self._log.item[rows], self._log.type[rows], self._log.time_ms[rows])

    def excluded(self, i: int) -> IntArray:
        """Returns the distinct items that must not be in list i."""
        return np.unique(self.items(i)) if self.exclude_history else np.zeros(0, np.int64)

    def _rows(self, i: int) -> slice:
        return slice(int(self._log.offsets[self.users[i]]), int(self._end[i]))


# Returns item indices [batch, DEPTH] int64, the best first, padded with -1 at the end.
Ranker = Callable[[Histories], IntArray]


def item_cf_ranker(item_cf: ItemCF, popularity: Popularity, depth: int = DEPTH) -> Ranker:
    """Returns a ranker by item-CF, filled up with popularity: the same call as the service's fallback."""

    def rank(histories: Histories) -> IntArray:
        lists = np.full((len(histories), depth), -1, np.int64)
        for i in range(len(histories)):
            excluded = histories.excluded(i)
            ranked = item_cf.recommend(histories.items(i), depth, None, excluded)
            items, _ = popularity.fill(*ranked, depth, None, excluded)
            lists[i, : len(items)] = items
        return lists

    return rank


def popularity_ranker(popularity: Popularity, depth: int = DEPTH) -> Ranker:
    """Returns a ranker by popularity alone."""

    def rank(histories: Histories) -> IntArray:
        lists = np.full((len(histories), depth), -1, np.int64)
        for i in range(len(histories)):
            items, _ = popularity.recommend(depth, None, histories.excluded(i))
            lists[i, : len(items)] = items
        return lists

    return rank


def repeat_ranker(repeat: Repeat, popularity: Popularity, depth: int = DEPTH) -> Ranker:
    """Returns a ranker of the user's own items, filled up with popularity; for lists that may repeat the history."""

    def rank(histories: Histories) -> IntArray:
        lists = np.full((len(histories), depth), -1, np.int64)
        for i in range(len(histories)):
            excluded = histories.excluded(i)
            ranked = repeat.recommend(histories.items(i), depth, None, excluded)
            items, _ = popularity.fill(*ranked, depth, None, excluded)
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
    batch: int = BATCH,
    lists: Mapping[str, IntArray] | None = None,
    samples: int = SAMPLES,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> Evaluation:
    """Ranks the catalogue with every system for every user of a hold-out part, and measures the lists.

    The first system is compared with each of the others by a paired bootstrap.

    Args:
        systems: Rankers by name.
        split: The split that every system was fitted on.
        part: The hold-out part.
        content: [items, features] of `metrics.item_content`, for the diversity; None leaves diversity out.
        exclude_history: Whether items of a user's history are left out of the lists.
        batch: Users ranked at once.
        lists: The lists of each system, where they were made already (`model.evaluation.sharded`).
        samples: Resamplings of the bootstrap.
        seed: Seed of the bootstrap.
        progress: Called with (system, users done, users in all) after each batch.

    Raises:
        ValueError: A system returned a list that breaks the protocol, or the part holds no user.
    """
    questions = questions_of(split, part)
    log = split.sequences
    if not len(questions):
        raise ValueError(f"the {part} part holds no user to evaluate")
    information = metrics.self_information(split.train.item, log.n_items)
    results: dict[str, SystemResult] = {}
    for name, ranker in systems.items():
        made = None if lists is None else lists[name]
        if made is None:
            made = np.full((len(questions), DEPTH), -1, np.int64)
            for start in range(0, len(questions), batch):
                rows = slice(start, min(start + batch, len(questions)))
                made[rows] = ranked_batch(name, ranker, split, part, rows, exclude_history=exclude_history)
                if progress is not None:
                    progress(name, rows.stop, len(questions))
        results[name] = _measure(made, questions.target, information, content, log.n_items)
    return Evaluation(
        split=part,
        users=len(questions),
        protocol=_protocol(split, exclude_history),
        systems=results,
        comparisons=_compare(results, samples, seed),
        history_kept=not exclude_history,
        facts=question_facts(split, questions),
    )


def questions_of(split: Split, part: Part) -> Holdout:
    """Returns the questions of a hold-out part."""
    return split.test if part == "test" else split.valid


def ranked_batch(
    name: str, ranker: Ranker, split: Split, part: Part, rows: slice, *, exclude_history: bool
) -> IntArray:
    """Returns the lists of some questions of a part [rows, DEPTH].

    Raises:
        ValueError: A list breaks the protocol.
    """
    questions = questions_of(split, part)
    users, ends = questions.users[rows], questions.history_end[rows]
    histories = Histories(users, ends, split.sequences, exclude_history)
    return _checked(name, ranker(histories), histories)


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


def _checked(name: str, lists: IntArray, histories: Histories) -> IntArray:
    """Returns the lists of a `Ranker`; ValueError where they are malformed, which metrics would not notice."""
    if lists.shape != (len(histories), DEPTH) or not np.issubdtype(lists.dtype, np.integer):
        raise ValueError(f"{name} returned {lists.dtype} {lists.shape}, not integers {(len(histories), DEPTH)}")
    if ((lists < -1) | (lists >= histories.n_items)).any():
        raise ValueError(f"{name} returned an item outside the catalogue")
    if ((lists[:, 1:] >= 0) & (lists[:, :-1] < 0)).any():
        raise ValueError(f"{name} returned a list with a hole")
    ordered = np.sort(lists, axis=1)
    if ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any():
        raise ValueError(f"{name} returned an item twice in one list")
    if histories.exclude_history:
        for i, row in enumerate(lists):
            if np.isin(row, histories.items(i)).any():
                raise ValueError(f"{name} returned an item of the user's own history")
    return lists.astype(np.int64)
