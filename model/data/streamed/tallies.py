"""What the report of an import counts, block by block."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import polars as pl

from model.data.checks import Findings
from model.data.dataset import SCENE
from model.data.items_users import MAX_FEATURE_VALUES
from model.data.times import iso_utc


@dataclass
class Tallies:
    """Counts of the blocks so far, which add up.

    Attributes:
        events: Number of events.
        users: Number of users.
        pairs: Number of pairs of a user and an item.
        types: Event type → events.
        lengths: Length of a history → users.
        first_ms: The earliest time.
        last_ms: The latest time.
        scenes: The scenes, as far as there are few enough to learn.
    """

    events: int = 0
    users: int = 0
    pairs: int = 0
    types: Counter[str] = field(default_factory=Counter)
    lengths: Counter[int] = field(default_factory=Counter)
    first_ms: int | None = None
    last_ms: int | None = None
    scenes: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, block: pl.DataFrame) -> Self:
        """Counts the events of a block, which has all events of its users."""
        lengths = block.group_by("user_id").len()["len"]
        first: Any = block["timestamp"].min()  # polars types it as any value of a column
        last: Any = block["timestamp"].max()
        return cls(
            events=block.height,
            users=len(lengths),
            pairs=block.select("user_id", "item_id").unique().height,
            types=Counter(dict(block["event_type"].value_counts().iter_rows())),
            lengths=Counter(dict(lengths.value_counts().iter_rows())),
            first_ms=first,
            last_ms=last,
            scenes=set(block[SCENE].drop_nulls().unique().head(MAX_FEATURE_VALUES + 1)),
        )

    def add(self, other: Tallies) -> None:
        """Adds the counts of other users."""
        self.events += other.events
        self.users += other.users
        self.pairs += other.pairs
        self.types += other.types
        self.lengths += other.lengths
        times = [ms for ms in (self.first_ms, self.last_ms, other.first_ms, other.last_ms) if ms is not None]
        self.first_ms, self.last_ms = min(times, default=None), max(times, default=None)
        if len(self.scenes) <= MAX_FEATURE_VALUES:
            self.scenes |= other.scenes

    @property
    def has_scenes(self) -> bool:
        """Whether the log has scenes, and few enough to learn."""
        return 0 < len(self.scenes) <= MAX_FEATURE_VALUES

    def report(self, items: int, items_with_events: int, findings: Findings) -> dict[str, Any]:
        """Returns the report of the import, with the keys of one in memory.

        Args:
            items: Size of the catalogue.
            items_with_events: Items that have an event.
            findings: What was dropped and noted.
        """
        lengths = np.array(sorted(self.lengths), np.int64)
        ends = np.cumsum([self.lengths[length] for length in lengths.tolist()])
        middle = [lengths[np.searchsorted(ends, place, side="right")] for place in self._middle()]
        return {
            "users": self.users,
            "items": items,
            "items_with_events": items_with_events,
            "events": self.events,
            "event_types": dict(self.types.most_common()),
            "events_per_user": {"min": int(lengths[0]), "median": float(np.mean(middle)), "max": int(lengths[-1])},
            "density": self.pairs / (self.users * items),
            "first_event": None if self.first_ms is None else iso_utc(self.first_ms),
            "last_event": None if self.last_ms is None else iso_utc(self.last_ms),
            "dropped": findings.dropped,
            "notes": findings.notes,
        }

    def to_json(self) -> dict[str, Any]:
        """Returns the counts, for `from_json`."""
        return {**vars(self), "lengths": sorted(self.lengths.items()), "scenes": sorted(self.scenes)}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Self:
        """Reads what `to_json` returned."""
        lengths = Counter(dict(told["lengths"]))
        return cls(**{**told, "types": Counter(told["types"]), "lengths": lengths, "scenes": set(told["scenes"])})

    def _middle(self) -> tuple[int, int]:
        return (self.users - 1) // 2, self.users // 2
