"""The batches of an increment: the new events in every epoch, and a sample of old sequences."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from model.data.dataset import Sequences
from model.training.batches import Batch, BatchPlan, Chunks, collate, cut_between
from service.artifact.array_types import IntArray

# Old events of an epoch, as a multiple of the new ones; at least `LEAST_REPLAYED`.
REPLAYED_MOST = 2.0
LEAST_REPLAYED = 2000
# Events before the new ones of a chunk, at most. Most users have few new events: with whole windows before them an
# increment goes over three old events for each new one.
CONTEXT = 16


@dataclass(frozen=True, eq=False)
class Learned:
    """Which events of a training part the run has learned.

    Attributes:
        train: The training part of the increment.
        count: [users] how many events of each, from the first on, are learned.
    """

    train: Sequences
    count: IntArray

    @property
    def border(self) -> IntArray:
        """[users] first new event of each, as an index of the flat arrays."""
        border: IntArray = self.train.offsets[:-1] + self.count
        return border

    @property
    def new_events(self) -> int:
        """Number of new events."""
        return int(self.train.n_events - self.count.sum())


def learned_events(log: Sequences, train: Sequences, new_from_ms: int, split: str) -> Learned:
    """Finds the events that a run has learned.

    Args:
        log: All events.
        train: Its training part.
        new_from_ms: Time from which on events are new to the run.
        split: How the run's log was split. The two last events of a user that a leave-one-out split may have held out
            count as new.
    """
    older = np.concatenate([np.zeros(1, np.int64), np.cumsum(log.time_ms < new_from_ms)])
    count = np.diff(older[log.offsets])
    if split == "leave_one_out":
        count = np.where(count >= 3, count - 2, count)
    return Learned(train, np.minimum(count, train.lengths))


class ReplayPlan(BatchPlan):
    """Batches of new events and of old sequences, which are drawn anew for every epoch.

    Both are a function of (seed, epoch) alone.
    """

    def __init__(
        self, learned: Learned, length: int, context: int, max_tokens: int, seed: int, *, share: float
    ) -> None:
        """Cuts the new events.

        Args:
            learned: What is new and what is not.
            length: Largest number of inputs of a chunk.
            context: Events before the first target of a chunk.
            max_tokens: Padded positions of a batch.
            seed: Seed of batches and sample.
            share: Share of the old sequences in each epoch.
        """
        self._learned, self._cut, self._share = learned, (length, context), share
        users = np.flatnonzero(learned.count < learned.train.lengths)
        ends = learned.train.offsets[1:]
        self._new = cut_between(learned.train, users, learned.border[users], ends[users], length, context)
        super().__init__(self._new, max_tokens, seed)

    def epoch(self, epoch: int) -> list[IntArray]:
        """Returns the rows of `chunks` in each batch of the epoch; the chunks change with the epoch."""
        self.chunks = self._of_epoch(epoch)
        return super().epoch(epoch)

    def batches(self, epoch: int, start_item: int) -> Iterator[Batch]:
        """Yields the batches of the epoch; `start_item` is the item index of the start token."""
        rows, chunks = self.epoch(epoch), self.chunks
        return (collate(chunks, batch, start_item) for batch in rows)

    def _of_epoch(self, epoch: int) -> Chunks:
        users = self._replayed(epoch)
        if not len(users):
            return self._new
        starts = self._learned.train.offsets[users]
        old = cut_between(self._learned.train, users, starts, self._learned.border[users], *self._cut)
        parts = zip(
            *((c.user, c.start, c.loss_from, c.end) for c in (self._new, old)),
            strict=True,
        )
        return Chunks(self._learned.train, *(np.concatenate(part) for part in parts))

    def _replayed(self, epoch: int) -> IntArray:
        """Returns the users whose old sequences the epoch goes over again."""
        count = self._learned.count
        users = np.flatnonzero(count > 0)
        drawn = np.random.default_rng([self.seed, epoch, 1]).permutation(users)[: math.ceil(self._share * len(users))]
        most = max(REPLAYED_MOST * self._learned.new_events, LEAST_REPLAYED)
        fit = np.cumsum(count[drawn]) <= most
        if len(drawn):
            fit[0] = True
        return np.sort(drawn[fit])
