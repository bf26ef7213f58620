"""Users of a real data set for the comparison, each with the encoder's output and the expected list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from loadtests.peers.ranker import Answer, Ranker
from loadtests.peers.systems import Subject, by_history
from model.data.dataset import Dataset, sequences
from service.artifact.features import EVENT_TYPES
from service.engine.jobs import EncodeJob

HISTORY = 50
# Two scores closer than this are a tie: two float32 sums of the same terms in another order.
SCORE_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class Users:
    """Users to compare with; `expected[n]` is the answer of the exported graphs for `subjects[n]`."""

    subjects: Sequence[Subject]
    expected: Sequence[Answer]


def users_of(data: Path, artifact: Path, count: int, seed: int = 0) -> Users:
    """Chooses `count` users with at least 50 events, each with the last 50.

    Raises:
        ValueError: If there is no such user.
    """
    log = sequences(Dataset.load(data))
    able = np.flatnonzero(log.lengths >= HISTORY)
    if not len(able):
        raise ValueError(f"{data}: no user has {HISTORY} events")
    chosen = np.random.default_rng(seed).permutation(able)[:count]
    ranker = Ranker.open(str(artifact), threads=1)
    vocabulary = ranker.engine.artifact.vocabulary
    subjects = []
    for user in chosen.tolist():
        rows = slice(log.user(user).stop - HISTORY, log.user(user).stop)
        items = tuple(log.item_ids[item] for item in log.item[rows])
        types = tuple(EVENT_TYPES[kind] for kind in log.type[rows])
        times = tuple(log.time_ms[rows].tolist())
        events = vocabulary.events(items, types, times)
        state = ranker.engine.encode([EncodeJob(events=events, from_start=True)])[0]
        if isinstance(state, Exception):
            raise state
        subjects.append(Subject(f"compared-{user}", items, types, times, state.h))
    return Users(subjects, [ranker.from_history([by_history(subject)])[0] for subject in subjects])


def same_list(expected: Answer, given: Sequence[str], scores: Sequence[float]) -> bool:
    """Returns whether two lists hold the same items in the same order; items with tied scores may change places."""
    wanted = expected["items"]
    return len(wanted) == len(given) and all(
        one["item_id"] == item or abs(one["score"] - score) <= SCORE_TOLERANCE
        for one, item, score in zip(wanted, given, scores, strict=True)
    )
