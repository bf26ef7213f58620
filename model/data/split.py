"""Which events a model may be fitted on, and which it is asked to predict.

A `Holdout` names a target item and where its history ends, never the time of the target: the time of the
event to be predicted is not known when the question is asked, so no split hands it out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from model.data.dataset import Sequences
from model.data.errors import DataError
from service.artifact.array_types import IntArray


@dataclass(frozen=True, eq=False)
class Holdout:
    """Questions with their answers, one a user.

    `users[i]` is a user's row, `history_end[i]` the row of the flat arrays where the history stops (it is
    `offsets[users[i]]:history_end[i]`), `target[i]` the index of the item to be predicted.
    """

    users: IntArray  # [questions]
    history_end: IntArray  # [questions]
    target: IntArray  # [questions]

    def __len__(self) -> int:
        return len(self.users)


@dataclass(frozen=True, eq=False)
class Split:
    """`train` has the users and the catalogue of `sequences`, row for row, with the held-out events taken
    away (a user may be left with none). Histories of `valid` and `test` point into `sequences`."""

    kind: Literal["leave_one_out", "time"]
    sequences: Sequences
    train: Sequences
    valid: Holdout
    test: Holdout

    def history(self, holdout: Holdout, i: int) -> slice:
        """Rows of `sequences` that question `i` of a hold-out may look at, oldest first."""
        return slice(int(self.sequences.offsets[holdout.users[i]]), int(holdout.history_end[i]))


LEAST_VALIDATION_USERS, MOST_VALIDATION_USERS = 1000, 5000


def choose_validation_users(n_users: int) -> int:
    """A tenth of the users, but enough for a figure to choose by, and no more than that takes."""
    return min(max(n_users // 10, LEAST_VALIDATION_USERS), MOST_VALIDATION_USERS)


def leave_one_out(seqs: Sequences, validation_users: int | None = None) -> Split:
    """The last event of a user is the test, the one before it the validation, the rest is for training.

    A user with fewer than three events has nothing to spare: all of them stay in the training part. The
    history of the test question ends with the validation event. With `validation_users` only so many users, drawn
    once and for all, are asked for validation, and the event before the last of everybody else is trained on: what
    happened last says most about what is next (as Petrov and Macdonald, 2022, split).
    """
    users = np.flatnonzero(seqs.lengths >= 3).astype(np.int64)
    asked = users
    if validation_users is not None and validation_users < len(users):
        asked = np.sort(np.random.default_rng(0).permutation(users)[:validation_users])
    last, before = seqs.offsets[users + 1] - 1, seqs.offsets[asked + 1] - 2
    kept = np.ones(seqs.n_events, bool)
    kept[last] = kept[before] = False
    return Split(
        "leave_one_out",
        seqs,
        _keep(seqs, kept),
        valid=Holdout(asked, before, seqs.item[before]),
        test=Holdout(users, last, seqs.item[last]),
    )


def time_split(seqs: Sequences, valid_from_ms: int, test_from_ms: int, min_history: int = 1) -> Split:
    """Everything before `valid_from_ms` is for training; a question is a user's first event at or after a
    boundary.

    The history of a question is what the user did strictly before its boundary. A validation target lies
    before `test_from_ms`, so that nothing chosen on the validation part has seen the test part. Users with
    less than `min_history` events before the boundary are not asked. Raises `DataError` without times or
    with boundaries in the wrong order.
    """
    if not seqs.has_time:
        raise DataError(
            "a split by time needs times, and this data set has none",
            mend="use leave-one-out, or import the data with times",
        )
    if valid_from_ms >= test_from_ms:
        raise DataError(
            f"the validation part begins at {valid_from_ms}, not before the test part at {test_from_ms}",
            mend="give the earlier boundary first",
        )
    return Split(
        "time",
        seqs,
        _keep(seqs, seqs.time_ms < valid_from_ms),
        valid=_first_after(seqs, valid_from_ms, test_from_ms, min_history),
        test=_first_after(seqs, test_from_ms, None, min_history),
    )


def time_boundaries(seqs: Sequences, valid: float = 0.1, test: float = 0.1) -> tuple[int, int]:
    """Boundaries (validation, test) in ms that leave about these shares of all events behind them."""
    ordered = np.sort(seqs.time_ms)
    at = [min(len(ordered) - 1, int(len(ordered) * (1 - share))) for share in (valid + test, test)]
    return int(ordered[at[0]]), int(ordered[at[1]])


def _first_after(seqs: Sequences, start_ms: int, stop_ms: int | None, min_history: int) -> Holdout:
    before = _count(seqs, seqs.time_ms < start_ms)
    target_row = seqs.offsets[:-1] + before  # events of a user are in time order: the first not before
    asked = (before >= min_history) & (before < seqs.lengths)
    users = np.flatnonzero(asked).astype(np.int64)
    if stop_ms is not None:
        users = users[seqs.time_ms[target_row[users]] < stop_ms]
    rows = target_row[users]
    return Holdout(users, rows, seqs.item[rows])


def _count(seqs: Sequences, mask: npt.NDArray[np.bool_]) -> IntArray:
    """[users] how many of each user's events the mask [events] selects."""
    total = np.concatenate([np.zeros(1, np.int64), np.cumsum(mask, dtype=np.int64)])
    counts: IntArray = np.diff(total[seqs.offsets])
    return counts


def _keep(seqs: Sequences, mask: npt.NDArray[np.bool_]) -> Sequences:
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(_count(seqs, mask))])
    return replace(
        seqs,
        offsets=offsets,
        item=seqs.item[mask],
        type=seqs.type[mask],
        time_ms=seqs.time_ms[mask],
        scene=None if seqs.scene is None else seqs.scene[mask],
    )
