"""What one range of users adds: its questions, and the integers behind item-CF and transitions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
import polars as pl
from scipy import sparse

from model.data.dataset import Sequences
from model.data.errors import DataError
from model.data.long_histories import ITEM_CF_EVENTS, newest
from model.data.split import Holdout, Split, choose_validation_users, held_out_users, hold_out, time_split
from model.signals.counted.user_ranges import DataSetFiles, UserRange, ranked
from model.signals.shared_users import ItemTotals, touched_items
from model.signals.transition_table import transition_counts
from service.artifact.array_types import IntArray

SPLIT_SCHEMA: Mapping[str, pl.DataType] = {
    "part": pl.String(), "user": pl.Int64(), "history_end": pl.Int64(), "target": pl.Int64(),
}  # fmt: skip
PARTS = ("valid", "test")


@dataclass(frozen=True)
class SplitRule:
    """How the log is split; the fields are those of the training.

    Attributes:
        kind: leave_one_out or time.
        validation_users: The most users to validate on; -1: by rule, 0: all.
        valid_share: Share of the events of a split by time that validate.
        test_share: Share of the events that test.
    """

    kind: Literal["leave_one_out", "time"] = "leave_one_out"
    validation_users: int = -1
    valid_share: float = 0.1
    test_share: float = 0.1


@dataclass(frozen=True, eq=False)
class Splitter:
    """Splits ranges of a log as the whole of it is split.

    Attributes:
        tested: Users with a question in the test; None in a split by time.
        validated: Users with one in the validation; None in a split by time.
        boundaries: Start of the validation and of the test, in UTC milliseconds; None without a split by time.
    """

    tested: IntArray | None = None
    validated: IntArray | None = None
    boundaries: tuple[int, int] | None = None

    @classmethod
    def of(cls, rule: SplitRule, files: DataSetFiles, lengths: IntArray) -> Self:
        """Decides what the whole log decides.

        Args:
            rule: How the log is split.
            files: The data set.
            lengths: [users] events of each history.

        Raises:
            DataError: The log has no times, and the split needs them.
        """
        if rule.kind == "leave_one_out":
            n = rule.validation_users
            limit = choose_validation_users(len(lengths)) if n < 0 else n or None
            return cls(*held_out_users(lengths, limit))
        if not files.has_time:
            raise DataError(
                "a split by time needs times, and this data set has none",
                where=str(files.folder),
                fix="use --split leave_one_out, or import the data with times",
            )
        events = int(lengths.sum())
        shares = (rule.valid_share + rule.test_share, rule.test_share)
        first, second = ranked(files.times, [min(events - 1, int(events * (1 - share))) for share in shares])
        return cls(boundaries=(first, second))

    def split(self, log: Sequences, part: UserRange) -> Split:
        """Splits the histories of a range.

        Raises:
            DataError: The boundaries of a split by time are equal.
        """
        if self.boundaries is not None:
            return time_split(log, *self.boundaries)
        assert self.tested is not None and self.validated is not None  # noqa: S101, PT018 - one of the two kinds
        return hold_out(
            log, _inside(self.tested, part.user, log.n_users), _inside(self.validated, part.user, log.n_users)
        )


def _inside(users: IntArray, first: int, count: int) -> IntArray:
    low, high = np.searchsorted(users, [first, first + count])
    return users[low:high] - first


@dataclass(frozen=True, eq=False)
class RangeCounts:
    """The integers of one range.

    Attributes:
        questions: Rows with the columns of `SPLIT_SCHEMA`; users and events count over the whole log.
        events: [items] events of the training part.
        counted: [items] events that transitions count, of each user the newest.
        touched: [users, items] which items each user has events with in the training part.
        transitions: [items, items] the counts of `transition_counts`.
    """

    questions: pl.DataFrame
    events: IntArray
    counted: IntArray
    touched: sparse.csr_array
    transitions: sparse.csr_array

    @classmethod
    def of(cls, log: Sequences, part: UserRange, splitter: Splitter) -> Self:
        """Splits and counts the histories of a range."""
        split = splitter.split(log, part)
        train = newest(split.train, ITEM_CF_EVENTS)
        return cls(
            questions=pl.concat([_questions(split.valid, "valid", part), _questions(split.test, "test", part)]),
            events=np.bincount(split.train.item, minlength=log.n_items).astype(np.int64),
            counted=np.bincount(train.item, minlength=log.n_items).astype(np.int64),
            touched=touched_items(split.train),
            transitions=transition_counts(train),
        )

    @property
    def totals(self) -> ItemTotals:
        """What is known of each item alone."""
        return ItemTotals.of(self.touched)

    def save(self, path: Path) -> None:
        """Writes the counts, the questions apart."""
        self.questions.write_parquet(path.with_suffix(".parquet"))
        matrices = {
            f"{name}_{field}": getattr(matrix, field)
            for name, matrix in (("touched", self.touched), ("transitions", self.transitions))
            for field in ("indptr", "indices", "data")
        }
        np.savez(path.with_suffix(".npz"), events=self.events, counted=self.counted, **matrices)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads what `save` wrote."""
        with np.load(path.with_suffix(".npz")) as arrays:
            n = len(arrays["events"])
            touched, transitions = (
                sparse.csr_array(
                    tuple(arrays[f"{name}_{field}"] for field in ("data", "indices", "indptr")),
                    shape=(len(arrays[f"{name}_indptr"]) - 1, n),
                )
                for name in ("touched", "transitions")
            )
            questions = pl.read_parquet(path.with_suffix(".parquet"))
            return cls(questions, arrays["events"], arrays["counted"], touched, transitions)


def _questions(holdout: Holdout, name: str, part: UserRange) -> pl.DataFrame:
    columns = {
        "part": pl.Series([name], dtype=pl.String).new_from_index(0, len(holdout)),
        "user": holdout.users + part.user,
        "history_end": holdout.history_end + part.event,
        "target": holdout.target,
    }
    return pl.DataFrame(columns, schema=dict(SPLIT_SCHEMA))
