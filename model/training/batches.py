"""Training batches: sequences cut into chunks, grouped by length, padded little.

A chunk is a run of one user's events with the inputs the backbone would see if it streamed over them. Long histories
are cut with `window` events of context before each cut, and context positions carry no loss.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.data.dataset import NO_SCENE, Sequences
from service.artifact.array_types import IntArray
from service.artifact.features import GAP_UNKNOWN, START_TYPE

NO_TARGET = -1


@dataclass(frozen=True)
class Batch:
    """[B, T] int64 each. `target` is the next item or −1, `target_type` the type of that event; `gap_ms` the time to
    it, `scene` where it happened or −1; `user` [B] rows of the data set. Where the targets are events that are hidden
    (`model.training.masking`), `asked` marks them and `length` [B] counts the events."""

    item: Tensor
    type: Tensor
    time_ms: Tensor
    target: Tensor
    gap_ms: Tensor
    scene: Tensor
    user: Tensor
    target_type: Tensor
    asked: Tensor | None = None
    length: Tensor | None = None

    @property
    def places(self) -> dict[str, Tensor]:
        """What an encoder of hidden events needs besides the events."""
        given = {"asked": self.asked, "length": self.length}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class Chunks:
    """Cuts of the training sequences: events `start` … `end` of the flat arrays, loss from `loss_from` on.

    `first` marks chunks that begin a history: they get the start token.
    """

    sequences: Sequences
    user: IntArray
    start: IntArray
    loss_from: IntArray
    end: IntArray

    @property
    def length(self) -> IntArray:
        """Input positions: the start token and every event but the last, which is only a target."""
        return np.asarray(self.end - self.start - 1 + self.first)

    @property
    def first(self) -> IntArray:
        return np.asarray(self.start == self.sequences.offsets[self.user], np.int64)

    def __len__(self) -> int:
        return len(self.user)


def cut(sequences: Sequences, max_length: int, context: int) -> Chunks:
    """Cut every user's events into chunks of at most `max_length` inputs with `context` events before each cut.

    The first chunk of a history has nothing before it, so all of it carries a loss.
    """
    rows = []
    if max_length <= context:
        raise ValueError(f"max_length ({max_length}) must exceed the context kept before a cut ({context})")
    for user, (low, high) in enumerate(zip(sequences.offsets[:-1], sequences.offsets[1:], strict=True)):
        loss_from = low
        while loss_from < high:
            start = max(low, loss_from - context)
            end = min(high, start + max_length)
            if end - start >= 1 and not (end - start == 1 and start > low):
                rows.append((user, start, loss_from, end))
            loss_from = end
    user_, start_, loss_, end_ = np.array(rows, np.int64).reshape(-1, 4).T
    return Chunks(sequences, user_, start_, loss_, end_)


class BatchPlan:
    """Order of one epoch: chunks of like length share a batch of at most `max_tokens` padded positions.

    The order is a function of (seed, epoch) alone, so a resumed run sees the batches an unbroken one would.
    """

    def __init__(self, chunks: Chunks, max_tokens: int, seed: int) -> None:
        self.chunks, self.max_tokens, self.seed = chunks, max_tokens, seed

    def epoch(self, epoch: int) -> list[IntArray]:
        """Rows of `chunks` for every batch of the epoch."""
        rng = np.random.default_rng([self.seed, epoch])
        length = self.chunks.length
        # A little noise on the length changes who shares a batch from epoch to epoch.
        order = np.argsort(length * rng.uniform(0.95, 1.05, len(length)), kind="stable")
        batches: list[IntArray] = []
        current: list[int] = []
        longest = 0
        for row in order:
            widest = max(longest, int(length[row]))
            if current and widest * (len(current) + 1) > self.max_tokens:
                batches.append(np.array(current))
                current, widest = [], int(length[row])
            current.append(int(row))
            longest = widest
        batches.append(np.array(current))
        return [batches[i] for i in rng.permutation(len(batches))]

    def padding_share(self) -> float:
        """Share of padded positions in an epoch."""
        length = self.chunks.length
        padded = sum(len(rows) * int(length[rows].max()) for rows in self.epoch(0))
        return 1.0 - float(length.sum()) / padded

    def batches(self, epoch: int, start_item: int) -> Iterator[Batch]:
        for rows in self.epoch(epoch):
            yield collate(self.chunks, rows, start_item)


def collate(chunks: Chunks, rows: IntArray, start_item: int) -> Batch:
    """Right-padded tensors for some chunks. The start token takes the first event's time and no type."""
    s = chunks.sequences
    size = (len(rows), int(chunks.length[rows].max()))
    item, kind, time, gap, target_kind = (np.zeros(size, np.int64) for _ in range(5))
    target, scene = np.full(size, NO_TARGET, np.int64), np.full(size, NO_SCENE, np.int64)
    first = chunks.first
    for i, row in enumerate(rows):
        low, high, lead = int(chunks.start[row]), int(chunks.end[row]), int(first[row])
        n = high - low - 1 + lead
        if lead:
            item[i, 0], kind[i, 0], time[i, 0] = start_item, START_TYPE, s.time_ms[low]
        item[i, lead:n] = s.item[low : high - 1]
        kind[i, lead:n] = s.type[low : high - 1]
        time[i, lead:n] = s.time_ms[low : high - 1]
        time[i, n:] = time[i, n - 1]
        first_target = high - n
        target[i, :n] = s.item[first_target:high]
        target_kind[i, :n] = s.type[first_target:high]
        if s.scene is not None:
            scene[i, :n] = s.scene[first_target:high]
        gap[i, :n] = s.time_ms[first_target:high] - time[i, :n]
        if lead:
            gap[i, 0] = GAP_UNKNOWN  # nothing came before the first event
        target[i, : int(chunks.loss_from[row]) - first_target] = NO_TARGET
    return Batch(*(torch.from_numpy(a) for a in (item, kind, time, target, gap, scene, chunks.user[rows], target_kind)))
