"""Puts converted events into the order of a data set: by user in order of first appearance, then by time.

All events of a user are in one partition, so a partition is put into order on its own. What is left is to merge the
partitions by the first event of each user, in blocks of users.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import polars as pl

from model.data.checks import Findings
from model.data.dataset import EVENT_SCHEMA, SCENE
from model.data.streamed.conversion import CONVERTED, SEQ
from service.artifact.array_types import IntArray

# Where the first event of the user stands in the source.
FIRST = "#first"
ORDERED: dict[str, pl.DataType] = {**EVENT_SCHEMA, SCENE: pl.String(), FIRST: pl.Int64()}
# Events of a block; a user with more of them has a block of their own.
BLOCK = 1 << 20


def partition_of(partitions: int) -> pl.Expr:
    """Returns the partition of an event, by its user."""
    return (pl.col("user_id").hash(0) % partitions).cast(pl.Int64)


def ordered(events: pl.DataFrame, findings: Findings, *, has_time: bool) -> pl.DataFrame:
    """Drops repeated events and puts those of a partition into order.

    Args:
        events: All events of some users, with the columns of `CONVERTED`, in any order.
        findings: Receives what was dropped.
        has_time: The log has times; events without one are then dropped.

    Returns:
        The events with the columns of `ORDERED`, by the first event of their user and by time; ties keep the order of
        the source.
    """
    events = events.sort(SEQ)
    if has_time:
        findings.drop("no time", events["timestamp"].null_count())
        events = events.filter(pl.col("timestamp").is_not_null())
        every = events.height
        same = [name for name in CONVERTED if name != SEQ]
        events = events.unique(subset=same, keep="first", maintain_order=True)
        findings.drop("exact duplicates", every - events.height)
    events = events.with_columns(pl.col(SEQ).min().over("user_id").alias(FIRST))
    return events.sort(FIRST, *(["timestamp"] if has_time else []), SEQ).select(*ORDERED)


@dataclass(frozen=True, eq=False)
class Users:
    """The users of a partition, in order.

    Attributes:
        first: [users] where the first event of each stands in the source.
        events: [users] number of events of each.
    """

    first: IntArray
    events: IntArray

    @classmethod
    def of(cls, partition: pl.DataFrame) -> Self:
        """Counts the events of an ordered partition."""
        counted = partition.group_by(FIRST, maintain_order=True).agg(pl.len().cast(pl.Int64).alias("events"))
        return cls(counted[FIRST].to_numpy(), counted["events"].to_numpy())

    def rows(self, begin: int, end: int) -> slice:
        """Returns the rows of the partition whose users first appear from `begin` on and before `end`."""
        ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.events)])
        low, high = np.searchsorted(self.first, [begin, end])
        return slice(int(ends[low]), int(ends[high]))


def block_ends(partitions: Sequence[Users], size: int = BLOCK) -> list[int]:
    """Cuts the users of all partitions into blocks of about `size` events, in order of first appearance.

    Returns:
        For each block the place in the source before which its users first appear.
    """
    first = np.concatenate([users.first for users in partitions])
    order = np.argsort(first, kind="stable")
    first, events = first[order], np.concatenate([users.events for users in partitions])[order]
    block = (np.cumsum(events) - events) // max(size, 1)
    last = np.flatnonzero(np.diff(block, append=block[-1:] + 1))
    return [int(place) + 1 for place in first[last]]


def merged(parts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Returns the events of one block, which partition by partition are in order."""
    return pl.concat(parts).sort(FIRST, maintain_order=True)
