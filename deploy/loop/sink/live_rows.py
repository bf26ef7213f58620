"""Rows of the log as live outcomes take them: from entries of the streams, and from the files hour by hour."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import chain
from typing import Any

import polars as pl

from model.online.log_folder import LogFolder
from model.online.log_schema import TIME_OF, Kind, LogError, entry_row
from service.store.streams.log_streams import Shard
from service.store.streams.stream_group import StreamEntry

HOUR_MS = 3_600_000
# What follows lists, in the order of its effect at one moment.
_FOLLOWING: tuple[Kind, ...] = ("merges", "events", "erased")
_COLUMNS = [
    "list_id",
    "request_id",
    "subject",
    "time_ms",
    "items",
    "model_version",
    "segment",
    "strategy",
    "rung",
    "arms",
]
_NEEDED = {"exposures": ("list_id", "subject", "time_ms", "items"), "events": ("type", "time_ms", "received_ms")}

LiveRow = tuple[Kind, Mapping[str, Any]]


def row_of(shard: Shard, entry: StreamEntry) -> LiveRow | None:
    """Returns the row of an entry; None if the writer will refuse it."""
    if entry.fields is None:
        return None
    try:
        # What the list was drawn from is of no use here.
        kind, row = entry_row(shard.stream, {name: value for name, value in entry.fields.items() if name != "c"})
        if any(row.get(name) is None for name in _NEEDED.get(kind, ())):
            return None
    except (LogError, ValueError, TypeError):
        return None
    return kind, row


def when(row: LiveRow) -> int:
    """Returns the time of a row, in milliseconds, by which those that follow lists are taken in order."""
    kind, one = row
    return int(one[TIME_OF[kind]])


def lists_of(log: LogFolder, begins: int, *, arms_only: bool) -> Iterator[LiveRow]:
    """Yields the lists of an hour.

    Args:
        log: The log.
        begins: Its first millisecond.
        arms_only: Yields those of experiments alone.
    """
    for lists in log.read("exposures", _COLUMNS, from_ms=begins, until_ms=begins + HOUR_MS):
        chosen = lists.filter(pl.col("arms").list.len() > 0) if arms_only else lists
        for row in chosen.iter_rows(named=True):
            yield "exposures", row


def following(log: LogFolder, begins: int) -> list[LiveRow]:
    """Returns the merges, events and erasures of an hour in their order.

    Args:
        log: The log.
        begins: Its first millisecond.
    """
    return sorted(chain.from_iterable(map(partial(_hour, log, begins), _FOLLOWING)), key=when)


def _hour(log: LogFolder, begins: int, kind: Kind) -> Iterator[LiveRow]:
    rows = log.read_all(kind, from_ms=begins, until_ms=begins + HOUR_MS)
    return ((kind, row) for row in rows.iter_rows(named=True))
