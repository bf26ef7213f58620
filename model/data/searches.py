"""Searches without an item: beside the log, because they are no events of an item.

The log itself holds items alone, so splits, baselines, signals and targets are the same with searches and without.
`model.data.query_histories` puts them into the histories of networks that read queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import polars as pl

from service.artifact.array_types import IntArray
from service.artifact.query_text import QUERY_GRAMS, KnownQueries, query_grams


@dataclass(frozen=True, eq=False)
class Searches:
    """The searches of all users as flat arrays, oldest first.

    Attributes:
        offsets: [users + 1] user `u` owns rows `offsets[u]:offsets[u + 1]` of the arrays below.
        time_ms: [searches] UTC milliseconds.
        query: [searches] texts.
    """

    offsets: IntArray
    time_ms: IntArray
    query: tuple[str, ...]
    _grams: dict[tuple[int, KnownQueries | None], IntArray] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, table: pl.DataFrame, user_ids: Sequence[str]) -> Self:
        """Reads the searches of a data set; those of users without events are left out.

        Args:
            table: user_id, timestamp and query.
            user_ids: The users, in the order of their rows.
        """
        row = {user: at for at, user in enumerate(user_ids)}
        kept = sorted(((row[u], t, q) for u, t, q in table.iter_rows() if u in row), key=lambda search: search[:2])
        users = np.array([user for user, _, _ in kept], np.int64)
        counts = np.bincount(users, minlength=len(user_ids))
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return cls(offsets, np.array([time for _, time, _ in kept], np.int64), tuple(query for _, _, query in kept))

    def grams(self, buckets: int, known: KnownQueries | None = None) -> IntArray:
        """Returns what a network reads of the queries [searches, QUERY_GRAMS]; see `query_grams`."""
        if (buckets, known) not in self._grams:
            by_query = {query: query_grams(query, buckets, known) for query in set(self.query)}
            rows = np.array([by_query[query] for query in self.query], np.int64)
            self._grams[buckets, known] = rows.reshape(-1, QUERY_GRAMS)
        return self._grams[buckets, known]

    def until(self, user: int, time_ms: int) -> slice:
        """Returns the rows of a user's searches up to and including a time."""
        low, high = int(self.offsets[user]), int(self.offsets[user + 1])
        return slice(low, low + int(np.searchsorted(self.time_ms[low:high], time_ms, side="right")))


def merged(old: pl.DataFrame | None, new: pl.DataFrame | None) -> pl.DataFrame | None:
    """Returns the searches of two data sets in order of time, each once; None where there are none."""
    tables = [table for table in (old, new) if table is not None]
    return pl.concat(tables).unique(maintain_order=True).sort("timestamp", maintain_order=True) if tables else None
