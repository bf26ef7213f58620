"""Training batches: sequences are cut into chunks, grouped by length and padded.

A chunk holds consecutive events of one user, with the inputs that the encoder would see if it streamed over them. A
long history is cut into several; each starts with context events from before the cut, which carry no loss.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from model.data.dataset import NO_SCENE, Sequences
from service.artifact.array_types import IntArray
from service.artifact.features import GAP_UNKNOWN, START_TYPE
from service.artifact.query_text import NO_GRAM, QUERY_GRAMS

NO_TARGET = -1


@dataclass(frozen=True)
class Batch:
    """Right-padded chunks, all int64.

    Attributes:
        item: [B, T] input items; `n_items` + 1 is the start token.
        type: [B, T] their event types.
        time_ms: [B, T] their times.
        target: [B, T] the next item, `NO_TARGET` where the position carries no loss.
        gap_ms: [B, T] milliseconds to the target, `GAP_UNKNOWN` before a user's first event.
        scene: [B, T] the target's scene, `NO_SCENE` where unknown.
        user: [B] row of the user in the data set.
        target_type: [B, T] the target's event type.
        masked: [B, T] bool, the masked positions, whose target is their own item (`model.training.masking`).
        length: [B] events of each row; set together with `masked`.
        query: [B, T, QUERY_GRAMS] n-grams of the queries; None where the network reads none. A search without an item
            has the unknown item, and is no target.
        session: [B, T] numbers of the events' sessions, 0 for the start token and where unknown; None in a log without.
    """

    item: Tensor
    type: Tensor
    time_ms: Tensor
    target: Tensor
    gap_ms: Tensor
    scene: Tensor
    user: Tensor
    target_type: Tensor
    masked: Tensor | None = None
    length: Tensor | None = None
    query: Tensor | None = None
    session: Tensor | None = None

    @property
    def masking(self) -> dict[str, Tensor]:
        """Keyword arguments of `GPT4Rec.forward` for encoders of the task "masked"; empty for the others."""
        arguments = {"masked": self.masked, "length": self.length}
        return {name: value for name, value in arguments.items() if value is not None}


@dataclass(frozen=True)
class Chunks:
    """Chunks of the training sequences.

    Attributes:
        sequences: The sequences that are cut.
        user: [chunks] row of the user.
        start: [chunks] first event, as an index of the flat arrays.
        loss_from: [chunks] first event that is a target; those before it are context.
        end: [chunks] index after the last event.
    """

    sequences: Sequences
    user: IntArray
    start: IntArray
    loss_from: IntArray
    end: IntArray

    @property
    def length(self) -> IntArray:
        """[chunks] input positions: the start token and every event but the last, which is only a target."""
        return np.asarray(self.end - self.start - 1 + self.first)

    @property
    def first(self) -> IntArray:
        """[chunks] 1 for chunks that begin a history, which get the start token; else 0."""
        return np.asarray(self.start == self.sequences.offsets[self.user], np.int64)

    def __len__(self) -> int:
        return len(self.user)


def cut(sequences: Sequences, max_length: int, context: int) -> Chunks:
    """Cuts every user's events into chunks.

    The first chunk of a history has nothing before it, so all of it carries a loss.

    Args:
        sequences: The training sequences.
        max_length: Largest number of inputs of a chunk.
        context: Events before each cut that a chunk repeats without a loss.

    Raises:
        ValueError: `max_length` leaves no room after the context.
    """
    users = np.arange(sequences.n_users)
    return cut_between(sequences, users, sequences.offsets[:-1], sequences.offsets[1:], max_length, context)


def cut_between(
    sequences: Sequences, users: IntArray, begin: IntArray, end: IntArray, max_length: int, context: int
) -> Chunks:
    """Cuts some users' events into chunks, of which only a part carries a loss.

    Args:
        sequences: The training sequences.
        users: [n] rows of the users.
        begin: [n] first event of each that is a target, as an index of the flat arrays.
        end: [n] index after its last one.
        max_length: Largest number of inputs of a chunk.
        context: Events before the targets of a chunk that it repeats without a loss.

    Raises:
        ValueError: `max_length` leaves no room after the context.
    """
    rows = []
    if max_length <= context:
        raise ValueError(f"max_length ({max_length}) must exceed the context kept before a cut ({context})")
    lows = sequences.offsets[users]
    for user, low, first, high in zip(users, lows, begin, end, strict=True):
        loss_from = first
        while loss_from < high:
            start = max(low, loss_from - context)
            end = min(high, start + max_length)
            if end - start >= 1 and not (end - start == 1 and start > low):
                rows.append((user, start, loss_from, end))
            loss_from = end
    user_, start_, loss_, end_ = np.array(rows, np.int64).reshape(-1, 4).T
    return Chunks(sequences, user_, start_, loss_, end_)


class BatchPlan:
    """The batches of every epoch: chunks of similar length share at most `max_tokens` padded positions.

    Batches and their order are a function of (seed, epoch) alone, so a resumed run sees the same batches as an
    uninterrupted one.
    """

    def __init__(self, chunks: Chunks, max_tokens: int, seed: int) -> None:
        self.chunks, self.max_tokens, self.seed = chunks, max_tokens, seed

    def epoch(self, epoch: int) -> list[IntArray]:
        """Returns the rows of `chunks` in each batch of the epoch."""
        rng = np.random.default_rng([self.seed, epoch])
        length = self.chunks.length
        # Noise on the length changes which chunks share a batch from epoch to epoch.
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
        """Returns the share of padded positions in an epoch."""
        batches, length = self.epoch(0), self.chunks.length
        padded = sum(len(rows) * int(length[rows].max()) for rows in batches)
        return 1.0 - float(length.sum()) / padded

    def batches(self, epoch: int, start_item: int) -> Iterator[Batch]:
        """Yields the batches of the epoch; `start_item` is the item index of the start token."""
        for rows in self.epoch(epoch):
            yield collate(self.chunks, rows, start_item)


def collate(chunks: Chunks, rows: IntArray, start_item: int) -> Batch:
    """Returns the chunks `rows` as one batch. The start token takes the time of the first event."""
    s = chunks.sequences
    size = (len(rows), int(chunks.length[rows].max()))
    item, kind, time, gap, target_kind = (np.zeros(size, np.int64) for _ in range(5))
    target, scene = np.full(size, NO_TARGET, np.int64), np.full(size, NO_SCENE, np.int64)
    query = None if s.query is None else np.full((*size, QUERY_GRAMS), NO_GRAM, np.int64)
    session = None if s.session is None else np.zeros(size, np.int64)
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
            gap[i, 0] = GAP_UNKNOWN  # no event comes before the first
        target[i, : int(chunks.loss_from[row]) - first_target] = NO_TARGET
        if query is not None and s.query is not None:
            query[i, lead:n] = s.query[low : high - 1]
        if session is not None and s.session is not None:
            session[i, lead:n] = s.session[low : high - 1]
    if query is not None:
        target[target >= s.n_items] = NO_TARGET  # a search: the item after it is the target of the search
    batch = Batch(
        *(torch.from_numpy(a) for a in (item, kind, time, target, gap, scene, chunks.user[rows], target_kind))
    )
    more = {"query": query, "session": session}
    return replace(batch, **{name: torch.from_numpy(array) for name, array in more.items() if array is not None})
