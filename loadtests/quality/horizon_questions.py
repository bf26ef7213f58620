"""Questions about what a user takes a day, a week or a month ahead, and what their lists are like.

Everybody's held-out event is asked for from the events that came at least so long before it. The answer is the same at
all horizons; what is known of the user is older. Lists are told how far ahead they look, where the network knows so
long a gap.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from model.data.dataset import Sequences
from model.data.split import Holdout, Split
from model.data.times import DAY_MS
from model.evaluation.evaluate import Histories
from model.evaluation.question_context import QuestionContext
from model.evaluation.rankers import network_ranker
from model.network.gpt4rec import GPT4Rec
from model.training.trainer import Trainer
from service.artifact.array_types import Float64Array, IntArray
from service.artifact.features import GAP_UNKNOWN, quantised_gap_ms

SHOWN = 10  # items of a list that are measured
AT_ONCE = 512


@dataclass(frozen=True, eq=False)
class Asked:
    """The questions of a horizon.

    Attributes:
        questions: Users, where what is known of them ends, and the answers.
        answered_ms: [questions] times of the answers.
    """

    questions: Holdout
    answered_ms: IntArray

    def __len__(self) -> int:
        return len(self.questions)


def ahead(split: Split, least_ms: int, less_ms: int, most: int) -> Asked:
    """Returns the questions of the test part whose newest known event lies in a distance before the answer.

    Args:
        split: The split.
        least_ms: Events less long before the answer are not known.
        less_ms: Questions whose newest known event is this long before the answer, or longer, are not asked.
        most: The most questions, evenly spaced.
    """
    log, test = split.sequences, split.test
    answered = log.time_ms[test.history_end]
    ends = np.array(
        [
            start + np.searchsorted(log.time_ms[start:end], at - least_ms, side="right")
            for start, end, at in zip(log.offsets[test.users], test.history_end, answered, strict=True)
        ],
        np.int64,
    )
    known = ends > log.offsets[test.users]
    near = answered - log.time_ms[np.maximum(ends - 1, 0)] < less_ms
    rows = np.flatnonzero(known & near).astype(np.int64)
    if len(rows) > most:
        rows = rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)]
    return Asked(Holdout(test.users[rows], ends[rows], test.target[rows]), answered[rows])


def evened(log: Sequences, questions: Holdout) -> Sequences:
    """Returns the log with the events of every known history evenly spaced between its first and its last."""
    time_ms = log.time_ms.copy()
    for user, end in zip(questions.users, questions.history_end, strict=True):
        start = log.offsets[user]
        time_ms[start:end] = np.linspace(time_ms[start], time_ms[end - 1], end - start).astype(np.int64)
    return replace(log, time_ms=time_ms)


def first_lists(trainer: Trainer, model: GPT4Rec, log: Sequences, asked: Asked) -> IntArray:
    """Returns the first items [questions, 10] of the lists of a network, which knows how far ahead they look.

    Args:
        trainer: The training that it comes from.
        model: The network.
        log: The log that histories are read from.
        asked: The questions.
    """
    questions, most = asked.questions, trainer.vocabulary.context.max_gap_ms
    gap_ms = asked.answered_ms - log.time_ms[questions.history_end - 1]
    gaps = np.full(log.n_users, GAP_UNKNOWN, np.int64)
    gaps[questions.users] = np.where(gap_ms <= most, quantised_gap_ms(gap_ms), GAP_UNKNOWN)
    context = QuestionContext(np.zeros((log.n_users, model.config.n_slots), np.int64), gaps)
    rank = network_ranker(model, trainer.vocabulary, SHOWN, context)
    lists = []
    for start in range(0, len(asked), AT_ONCE):
        part = questions.rows(slice(start, start + AT_ONCE))
        lists.append(rank(Histories(part.users, part.history_end, log, not trainer.config.repeats)))
    return np.concatenate(lists)


def item_ages(train: Sequences, lists: IntArray, asked_ms: IntArray) -> Float64Array:
    """Returns the mean days [questions] since the first training event of the items of each list.

    Items without an event, and those whose first event is later than the question, are as old as the question: 0.

    Args:
        train: The training part.
        lists: [questions, 10] items, −1 where there is none.
        asked_ms: [questions] times of the newest known events.
    """
    first = np.full(train.n_items, np.iinfo(np.int64).max)
    np.minimum.at(first, train.item, train.time_ms)
    shown = lists >= 0
    age = np.maximum(asked_ms[:, None] - np.minimum(first[np.maximum(lists, 0)], asked_ms[:, None]), 0) / DAY_MS
    ages: Float64Array = (age * shown).sum(1) / np.maximum(shown.sum(1), 1)
    return ages


def changed(lists: IntArray, others: IntArray) -> Float64Array:
    """Returns the share [questions] of each list's items that the other list does not have."""
    found = (lists[:, :, None] == others[:, None]).any(2) & (lists >= 0)
    shares: Float64Array = 1 - found.sum(1) / np.maximum((lists >= 0).sum(1), 1)
    return shares
