"""All that signals know of a user: the newest events, and the record of the items that were seen before them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

import numpy as np

from service.artifact.array_types import Float64Array, IntArray
from service.artifact.items.grouping import Grouping

# Items of the record that are read: the newest. As many as the store keeps by default (`Settings.seen_max`), so that
# signals are the same offline.
SEEN_ITEMS = 1000


def _none() -> IntArray:
    return np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class SeenBefore:
    """The items of events that the log no longer keeps, by their last event, oldest first.

    Attributes:
        items: [m] int64 catalogue indices, unique, at most `SEEN_ITEMS`. An index outside the catalogue is an unknown
            item.
        counts: [m] int64 ≥ 1, number of events of the item.
        last_ms: [m] int64 time of the item's last event, in epoch milliseconds, in whole seconds.
    """

    items: IntArray = field(default_factory=_none)
    counts: IntArray = field(default_factory=_none)
    last_ms: IntArray = field(default_factory=_none)

    @classmethod
    def of(cls, items: IntArray, times_ms: IntArray, counts: IntArray | None = None) -> Self:
        """Makes the record of events, or of entries of several events each, in any order.

        Of items that were last seen in the same second the one with the lower index counts as older, so that the order
        of arrival makes no difference.

        Args:
            items: [n] catalogue indices, not unique.
            times_ms: [n] times in epoch milliseconds.
            counts: [n] number of events of each entry; None: one each.
        """
        if not len(items):
            return cls()
        found, slot = np.unique(items, return_inverse=True)
        each = np.ones(len(items), np.int64) if counts is None else counts
        total = np.bincount(slot, each, minlength=len(found)).astype(np.int64)
        last = np.zeros(len(found), np.int64)
        np.maximum.at(last, slot, times_ms - times_ms % 1000)
        order = np.lexsort((found, last))[-SEEN_ITEMS:]
        return cls(found[order].astype(np.int64), total[order], last[order])

    def joined(self, other: SeenBefore) -> SeenBefore:
        """Returns the record of the events of both."""
        pairs = ((self.items, other.items), (self.last_ms, other.last_ms), (self.counts, other.counts))
        return SeenBefore.of(*(np.concatenate(pair) for pair in pairs))

    @property
    def nbytes(self) -> int:
        """Memory of the arrays."""
        return self.items.nbytes + self.counts.nbytes + self.last_ms.nbytes

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True, slots=True)
class OwnItems:
    """The distinct items of a history, those seen before the log included.

    Attributes:
        items: [m] int64 their indices, unique and ascending.
        counts: [m] float64 number of events of each.
        ranks: [m] float64 number of items with a newer last event.
    """

    items: IntArray
    counts: Float64Array
    ranks: Float64Array


@dataclass(frozen=True)
class UserHistory:
    """The history of a user, as signals read it.

    Attributes:
        items: [n] int64 item indices of the newest events, oldest first. An index outside the catalogue is an unknown
            item: it has no value, but counts for the age of the events before it.
        times_ms: [n] int64 times of the events, in epoch milliseconds.
        before: The items seen before these events.
    """

    items: IntArray = field(default_factory=_none)
    times_ms: IntArray = field(default_factory=_none)
    before: SeenBefore = field(default_factory=SeenBefore)

    @classmethod
    def of(cls, items: IntArray, times_ms: IntArray, kept: int, before: SeenBefore | None = None) -> Self:
        """Takes the newest events as they are, and the older ones into the record of what was seen before.

        Service, training and evaluation all make histories here, so that they see the same values.

        Args:
            items: [n] item indices of all events known, oldest first.
            times_ms: [n] their times in epoch milliseconds.
            kept: Number of newest events that are taken as they are: the receptive field of the model, which is what
                the service keeps at least.
            before: What was seen before these events, if they are not all.
        """
        cut = max(0, len(items) - kept)
        if cut:
            older = SeenBefore.of(items[:cut], times_ms[:cut])
            before = older if before is None else before.joined(older)
        return cls(items[cut:], times_ms[cut:], SeenBefore() if before is None else before)

    def __len__(self) -> int:
        return len(self.items)

    @cached_property
    def own(self) -> OwnItems:
        """The user's own items, counted once for all signals."""
        newest_first = np.concatenate([self.before.items, self.items])[::-1]
        each = np.concatenate([self.before.counts, np.ones(len(self), np.int64)])[::-1]
        grouping = Grouping.of(newest_first)
        last = grouping.place[grouping.first]
        ranks = np.empty(len(last), np.float64)
        ranks[last.argsort()] = np.arange(len(last))
        return OwnItems(grouping.items, grouping.sums(each), ranks)

    @classmethod
    def of_items(cls, items: IntArray) -> Self:
        """Returns the history of these items, oldest first, with nothing before it. Their times are unknown: 0."""
        return cls(items, np.zeros(len(items), np.int64))
