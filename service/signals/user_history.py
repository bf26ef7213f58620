"""All that signals know of a user: the retained log, and the record of the items that were seen before it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from service.artifact.array_types import IntArray


def _none() -> IntArray:
    return np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class SeenBefore:
    """The items of events that the log no longer keeps, by their last event, oldest first.

    Attributes:
        items: [m] int64 catalogue indices, unique. An index outside the catalogue is an unknown item.
        counts: [m] int64 ≥ 1, number of events of the item.
        last_ms: [m] int64 time of the item's last event, in epoch milliseconds.
    """

    items: IntArray = field(default_factory=_none)
    counts: IntArray = field(default_factory=_none)
    last_ms: IntArray = field(default_factory=_none)

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True, slots=True)
class UserHistory:
    """The history of a user, as signals read it.

    Attributes:
        items: [n] int64 item indices of the retained log, oldest first. An index outside the catalogue is an unknown
            item: it has no value, but counts for the age of the events before it.
        times_ms: [n] int64 times of the events, in epoch milliseconds.
        before: The items seen before the log.
    """

    items: IntArray = field(default_factory=_none)
    times_ms: IntArray = field(default_factory=_none)
    before: SeenBefore = field(default_factory=SeenBefore)

    def __len__(self) -> int:
        return len(self.items)
