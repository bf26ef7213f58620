"""The candidates of validation questions with the value of every signal, flat, in the order of the questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from model.errors import LearningError
from service.artifact.array_types import FloatArray, IntArray
from service.artifact.scorers.ranker_weights import DENSE, PATH

# Rows of a block; bounds what a pass over the candidates holds besides them.
BLOCK_ROWS = 1 << 18
# Squares of larger values, summed over a block in float32, could exceed its range.
_VALUE_MAX = 1e9


@dataclass(frozen=True, eq=False)
class CandidateTable:
    """Questions, and for each the items among which its target is to be found.

    Attributes:
        names: [signals] names of the signals.
        offsets: [questions + 1] rows of each question.
        values: [rows, signals] float32 value of each signal for each candidate.
        target: [questions] row of the target; −1 where it is no candidate.
        group: [questions] index into `groups` of the user's group.
        groups: Names of the groups.
    """

    names: tuple[str, ...]
    offsets: IntArray
    values: FloatArray
    target: IntArray
    group: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))
    groups: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.target)

    @cached_property
    def answered(self) -> npt.NDArray[np.bool_]:
        """[questions] whether the target is a candidate."""
        return self.target >= 0

    @classmethod
    def joined(cls, parts: Sequence[CandidateTable]) -> CandidateTable:
        """Returns the questions of several parts with the same signals and groups, one after the other."""
        first = parts[0]
        lengths = np.concatenate([np.diff(part.offsets) for part in parts])
        rows = np.cumsum([0, *(len(part.values) for part in parts)])
        targets = [np.where(part.answered, part.target + at, -1) for part, at in zip(parts, rows, strict=False)]
        return cls(
            first.names,
            np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]),
            np.concatenate([part.values for part in parts]),
            np.concatenate(targets),
            np.concatenate([part.group for part in parts]),
            first.groups,
        )

    def only(self, names: Sequence[str]) -> CandidateTable:
        """Returns the same questions and candidates with some of the signals."""
        columns = [self.names.index(name) for name in names]
        values = np.ascontiguousarray(self.values[:, columns])
        return CandidateTable(tuple(names), self.offsets, values, self.target, self.group, self.groups)

    def require_finite(self) -> None:
        """Raises LearningError if a value is not finite, or too large for a sum of such values to be.

        One such value would make all weights NaN.
        """
        # Not of absolute values, which would be a copy of the table; with a NaN both are NaN.
        lowest, highest = (bound(self.values, axis=0, initial=0) for bound in (np.min, np.max))
        wrong = [
            name
            for name, low, high in zip(self.names, lowest.tolist(), highest.tolist(), strict=True)
            if not (low >= -_VALUE_MAX and high <= _VALUE_MAX)
        ]
        if wrong:
            of_network = not {PATH, DENSE}.isdisjoint(wrong)
            raise LearningError(
                f"the ranker cannot learn weights: values of {', '.join(wrong)} are not finite, or exceed "
                f"{_VALUE_MAX:g}, for candidates of validation questions",
                fix="train the model again, with a smaller learning rate: its scores have diverged"
                if of_network
                else "look for values in the data set that are not finite, and export again",
            )

    def block(self, questions: IntArray) -> Block:
        """Returns some of the answered questions for the likelihood, in the order given."""
        start, length = self.offsets[questions], np.diff(self.offsets)[questions]
        starts = np.cumsum(length) - length
        rows = np.repeat(start - starts, length) + np.arange(int(length.sum()))
        values = self.values[rows]
        # The likelihood depends on differences within a question alone; without its mean, sums lose no digits.
        mean = np.add.reduceat(values, starts, axis=0, dtype=np.float64) / length[:, None]
        values -= np.repeat(mean.astype(np.float32), length, axis=0)
        return Block(values, starts, length, self.target[questions] - start + starts)


@dataclass(eq=False)
class CandidateCollector:
    """A table to which one question after the other is added."""

    names: tuple[str, ...]
    lengths: list[int] = field(default_factory=list)
    values: list[FloatArray] = field(default_factory=list)
    target: list[int] = field(default_factory=list)

    def add(self, items: IntArray, values: FloatArray, target: int) -> bool:
        """Adds the candidates [c] of a question, ascending, and [c, signals] values; returns whether one answers it."""
        place = int(items.searchsorted(target))
        hit = place < len(items) and int(items[place]) == target
        self.lengths.append(len(items))
        self.values.append(values)
        self.target.append(place if hit else -1)
        return hit

    def done(self, group: IntArray, groups: Sequence[str]) -> CandidateTable:
        """Returns what was collected, with the group of every question."""
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.lengths, dtype=np.int64)])
        values = np.concatenate([np.zeros((0, len(self.names)), np.float32), *self.values])
        target = np.array(self.target, np.int64)
        at = np.where(target >= 0, target + offsets[:-1], -1)
        return CandidateTable(self.names, offsets, values, at, group, tuple(groups))


@dataclass(frozen=True, eq=False)
class Block:
    """Answered questions in contiguous rows; `starts` [questions] is where each begins, `target` the row of its target.

    The values are less the mean of their question.
    """

    values: FloatArray
    starts: IntArray
    length: IntArray
    target: IntArray

    def __len__(self) -> int:
        return len(self.starts)

    def head(self, n: int) -> Block:
        """Returns the first n questions, without copying."""
        if n >= len(self):
            return self
        return Block(self.values[: self.starts[n]], self.starts[:n], self.length[:n], self.target[:n])


def blocks_of(candidates: CandidateTable, questions: IntArray) -> list[Block]:
    """Returns answered questions as blocks of about `BLOCK_ROWS` rows."""
    length = np.diff(candidates.offsets)[questions]
    at = (np.cumsum(length) - length) // BLOCK_ROWS
    cuts = np.flatnonzero(np.diff(at)) + 1
    return [candidates.block(part) for part in np.split(questions, cuts) if len(part)]
