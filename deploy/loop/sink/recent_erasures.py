"""Who was erased of late: what comes of them afterwards, late or again, is not written any more."""

from __future__ import annotations

from collections import OrderedDict

import polars as pl

from model.online.log_schema import Kind

# Later ones push out earlier ones; readers leave out what is older than an erasure anyway.
_MOST = 100_000


class RecentErasures:
    """Subjects, and until when everything of them is erased."""

    def __init__(self) -> None:
        self._until: OrderedDict[str, int] = OrderedDict()

    def add(self, subject: str, erased_ms: int) -> None:
        """Remembers an erasure."""
        self._until[subject] = max(erased_ms, self._until.pop(subject, 0))
        while len(self._until) > _MOST:
            self._until.popitem(last=False)

    def add_all(self, erased: pl.DataFrame) -> None:
        """Remembers rows of the kind `erased`."""
        for subject, erased_ms in erased.sort("erased_ms").select("subject", "erased_ms").iter_rows():
            self.add(subject, erased_ms)

    def covers(self, kind: Kind, subject: str, time_ms: int) -> bool:
        """Returns whether a row of this subject and time is erased."""
        return kind != "erased" and self._until.get(subject, -1) >= time_ms
