"""Reads the log of a data set in ranges of users, each as `Sequences` of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from model.data.dataset import Sequences
from service.artifact.array_types import IntArray
from service.artifact.features import SIGNAL_TYPES

# Rows read at once, and bins of a pass that looks for a quantile.
_ROWS, _BINS = 1 << 20, 1 << 16


@dataclass(frozen=True)
class UserRange:
    """Some users in a row.

    Attributes:
        number: Position among the ranges.
        rows: Rows of the file of events.
        user: Index of the first user.
        event: Index of the first event in the flat arrays of the log (`Sequences`).
    """

    number: int
    rows: tuple[int, int]
    user: int
    event: int


@dataclass(frozen=True, eq=False)
class DataSetFiles:
    """The files of a data set, read in parts.

    Attributes:
        folder: The folder.
        has_time: The log has times.
    """

    folder: Path
    has_time: bool

    @property
    def events(self) -> pl.LazyFrame:
        """The events."""
        return pl.scan_parquet(self.folder / "events.parquet")

    def items(self) -> pl.DataFrame:
        """Returns the ids of the catalogue with their indices."""
        ids = pl.read_parquet(self.folder / "items.parquet", columns=["item_id"])
        return ids.with_row_index("item").with_columns(pl.col("item").cast(pl.Int64))

    def users(self) -> tuple[IntArray, IntArray]:
        """Counts the rows of each user in the file, and how many of them are events of a history."""
        parts, rows = [], self._height()
        for start in range(0, rows, _ROWS):
            part = self.events.select("user_id", "event_type").slice(start, _ROWS).collect()
            kept = (~pl.col("event_type").is_in(sorted(SIGNAL_TYPES))).cast(pl.Int64).sum().alias("kept")
            parts.append(part.group_by("user_id", maintain_order=True).agg(pl.len().cast(pl.Int64), kept))
        of_rows, of_kept, last = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], None
        for part in parts:
            count, kept_count = part["len"].to_numpy().copy(), part["kept"].to_numpy().copy()
            if last is not None and part["user_id"][0] == last:  # this user began in the part before
                of_rows[-1][-1] += count[0]
                of_kept[-1][-1] += kept_count[0]
                count, kept_count = count[1:], kept_count[1:]
            if len(count):
                of_rows.append(count)
                of_kept.append(kept_count)
            last = part["user_id"][-1]
        return np.concatenate(of_rows), np.concatenate(of_kept)

    def read(self, part: UserRange, items: pl.DataFrame) -> Sequences:
        """Returns the histories of a range, over the whole catalogue.

        Args:
            part: The range.
            items: `items` of this object.
        """
        begin, end = part.rows
        names = ["user_id", "item_id", *(["timestamp"] if self.has_time else []), "event_type"]
        rows = self.events.select(names).slice(begin, end - begin).collect()
        rows = rows.filter(~pl.col("event_type").is_in(sorted(SIGNAL_TYPES)))
        placed = rows.join(items, on="item_id", how="left", maintain_order="left")
        lengths = rows.group_by("user_id", maintain_order=True).len()
        item = placed["item"].to_numpy().astype(np.int64)
        time_ms = rows["timestamp"].to_numpy().astype(np.int64) if self.has_time else np.zeros_like(item)
        return Sequences(
            user_ids=lengths["user_id"].to_list(),
            item_ids=items["item_id"].to_list(),
            offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths["len"].to_numpy().astype(np.int64))]),
            item=item,
            type=np.zeros_like(item),
            time_ms=time_ms,
            has_time=self.has_time,
        )

    def times(self) -> Iterator[IntArray]:
        """Yields the times of the events of histories, part by part."""
        for start in range(0, self._height(), _ROWS):
            part = self.events.select("timestamp", "event_type").slice(start, _ROWS).collect()
            kept = part.filter(~pl.col("event_type").is_in(sorted(SIGNAL_TYPES)))["timestamp"]
            yield kept.to_numpy().astype(np.int64)

    def _height(self) -> int:
        return int(self.events.select(pl.len()).collect().item())


def ranges(rows: IntArray, kept: IntArray, size: int) -> list[UserRange]:
    """Cuts the users into ranges of about `size` rows.

    Args:
        rows: [users of the file] rows of each.
        kept: [users of the file] events of histories of each; those who have none are no users of the log.
        size: Rows of a range; a user with more has a range of their own.
    """
    before = np.cumsum(rows) - rows
    starts = np.flatnonzero(np.diff(before // max(size, 1), prepend=-1))
    ends = np.append(starts[1:], len(rows))
    has_events = (kept > 0).astype(np.int64)
    user, event = np.cumsum(has_events) - has_events, np.cumsum(kept) - kept
    stop = np.append(before, before[-1:] + rows[-1:])
    return [
        UserRange(number, (int(stop[begin]), int(stop[end])), int(user[begin]), int(event[begin]))
        for number, (begin, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True))
    ]


def ranked(parts: Callable[[], Iterator[IntArray]], ranks: Sequence[int]) -> list[int]:
    """Returns the values at some places of all values in order, with a few passes over them and little memory.

    Args:
        parts: Returns the values, part by part.
        ranks: The places, from 0 on.
    """
    return [_ranked(parts, rank) for rank in ranks]


def _ranked(parts: Callable[[], Iterator[IntArray]], rank: int) -> int:
    ends_of = [(int(part.min()), int(part.max())) for part in parts() if len(part)]
    low, high = min(first for first, _ in ends_of), max(last for _, last in ends_of)
    while low < high:
        width = (high - low) // _BINS + 1
        counts = np.zeros(_BINS + 1, np.int64)
        for part in parts():
            inside = part[(part >= low) & (part <= high)]
            counts += np.bincount((inside - low) // width, minlength=_BINS + 1)
        ends = np.cumsum(counts)
        found = int(np.searchsorted(ends, rank, side="right"))
        rank -= int(ends[found] - counts[found])
        low, high = low + found * width, min(high, low + (found + 1) * width - 1)
        if width == 1:
            return low
    return low
