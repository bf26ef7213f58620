"""Splits a log into the events that a model is trained on and those that it has to predict.

A `Holdout` names a target item and where its history ends, never the time of the target. A service does not know the
time of the event that it predicts, so no split gives it out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from model.data.dataset import Sequences
from model.data.errors import DataError
from model.data.times import iso_utc
from service.artifact.array_types import IntArray


@dataclass(frozen=True, eq=False)
class Holdout:
    """Questions with their answers, at most one for each user.

    Attributes:
        users: [questions] index of the user.
        history_end: [questions] row of the flat arrays before which the history ends; the history of question i is
            `offsets[users[i]]:history_end[i]`.
        target: [questions] index of the item to predict.
    """

    users: IntArray
    history_end: IntArray
    target: IntArray

    def __len__(self) -> int:
        return len(self.users)

    def rows(self, rows: IntArray | slice) -> Holdout:
        """Returns some of the questions."""
        return Holdout(self.users[rows], self.history_end[rows], self.target[rows])

    def sample(self, limit: int) -> Holdout:
        """Returns at most `limit` questions, evenly spaced, so that the sample needs no seed."""
        if len(self) <= limit:
            return self
        return self.rows(np.linspace(0, len(self) - 1, limit).astype(np.int64))


@dataclass(frozen=True, eq=False)
class Split:
    """A log, the part to train on, and the questions of validation and test.

    Attributes:
        kind: How the log was split.
        sequences: The whole log. Histories of `valid` and `test` point into it.
        train: The same users and catalogue, row for row, without the held-out events; a user may have no event left.
        valid: The questions of the validation.
        test: The questions of the test.
    """

    kind: Literal["leave_one_out", "time"]
    sequences: Sequences
    train: Sequences
    valid: Holdout
    test: Holdout

    def history(self, holdout: Holdout, i: int) -> slice:
        """Rows of `sequences` that are the history of question `i`, oldest first."""
        return slice(int(self.sequences.offsets[holdout.users[i]]), int(holdout.history_end[i]))


LEAST_VALIDATION_USERS, MOST_VALIDATION_USERS = 1000, 5000


def choose_validation_users(n_users: int) -> int:
    """Returns how many users to validate on: a tenth of `n_users`, but at least 1,000 and at most 5,000.

    Fewer give a figure that is too noisy to choose a model by, and more do not make it noticeably better.
    """
    return min(max(n_users // 10, LEAST_VALIDATION_USERS), MOST_VALIDATION_USERS)


def leave_one_out(seqs: Sequences, validation_users: int | None = None) -> Split:
    """Holds out each user's last event for the test and the one before it for validation.

    All events of a user with fewer than three stay in the training part. The history of a test question ends with the
    validation event.

    Args:
        seqs: The whole log.
        validation_users: The most users to validate on, drawn with a fixed seed. The event before the last of all other
            users is trained on, because recent events say most about the next one (Petrov and Macdonald, 2022). None
            validates on all users.
    """
    return hold_out(seqs, *held_out_users(seqs.lengths, validation_users))


def held_out_users(lengths: IntArray, validation_users: int | None = None) -> tuple[IntArray, IntArray]:
    """Returns the users with a question in the test, and those with one in the validation.

    Args:
        lengths: [users] number of events of each user.
        validation_users: The most users to validate on, as for `leave_one_out`.
    """
    users = np.flatnonzero(lengths >= 3).astype(np.int64)
    if validation_users is None or validation_users >= len(users):
        return users, users
    return users, np.sort(np.random.default_rng(0).permutation(users)[:validation_users])


def hold_out(seqs: Sequences, users: IntArray, validated: IntArray) -> Split:
    """Splits a log as `leave_one_out` does, for users that are known (`held_out_users`)."""
    last, before = seqs.offsets[users + 1] - 1, seqs.offsets[validated + 1] - 2
    kept = np.ones(seqs.n_events, bool)
    kept[last] = kept[before] = False
    return Split(
        "leave_one_out",
        seqs,
        _keep(seqs, kept),
        valid=Holdout(validated, before, seqs.item[before]),
        test=Holdout(users, last, seqs.item[last]),
    )


def time_split(seqs: Sequences, valid_from_ms: int, test_from_ms: int, min_history: int = 1) -> Split:
    """Trains on everything before the validation boundary and asks for each user's first event at or after a boundary.

    The history of a question is what the user did strictly before its boundary. A validation target lies before
    `test_from_ms`, so that no choice made on validation has seen the test part.

    Args:
        seqs: The whole log.
        valid_from_ms: Start of the validation part, in UTC milliseconds.
        test_from_ms: Start of the test part, in UTC milliseconds.
        min_history: The fewest events before its boundary that a question needs.

    Raises:
        DataError: The log has no times, or the validation part does not begin before the test part.
    """
    if not seqs.has_time:
        raise DataError(
            "a split by time needs times, and this data set has none",
            fix="use --set split=leave_one_out, or import the data with times",
        )
    if valid_from_ms >= test_from_ms:
        raise DataError(
            f"the validation part begins at {iso_utc(valid_from_ms)}, "
            f"not before the test part at {iso_utc(test_from_ms)}",
            fix="too many of the last events share one time: use --set split=leave_one_out, or import finer times",
        )
    return Split(
        "time",
        seqs,
        _keep(seqs, seqs.time_ms < valid_from_ms),
        valid=_first_after(seqs, valid_from_ms, test_from_ms, min_history),
        test=_first_after(seqs, test_from_ms, None, min_history),
    )


def time_boundaries(seqs: Sequences, valid: float = 0.1, test: float = 0.1) -> tuple[int, int]:
    """Chooses the boundaries of a time split.

    Args:
        seqs: The whole log.
        valid: Share of all events between the two boundaries.
        test: Share of all events from the second boundary on.

    Returns:
        Start of the validation and of the test part, in UTC milliseconds; ties make the shares approximate.
    """
    ordered = np.sort(seqs.time_ms)
    first, second = (min(len(ordered) - 1, int(len(ordered) * (1 - share))) for share in (valid + test, test))
    return int(ordered[first]), int(ordered[second])


def _first_after(seqs: Sequences, start_ms: int, stop_ms: int | None, min_history: int) -> Holdout:
    before = _count(seqs, seqs.time_ms < start_ms)
    target_row = seqs.offsets[:-1] + before  # events of a user are in order of time
    validated = (before >= min_history) & (before < seqs.lengths)
    users = np.flatnonzero(validated).astype(np.int64)
    if stop_ms is not None:
        users = users[seqs.time_ms[target_row[users]] < stop_ms]
    rows = target_row[users]
    return Holdout(users, rows, seqs.item[rows])


def _count(seqs: Sequences, mask: npt.NDArray[np.bool_]) -> IntArray:
    """[users] number of events that the mask [events] selects."""
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
        session=None if seqs.session is None else seqs.session[mask],
    )
