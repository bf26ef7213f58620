"""What is counted over an hour or a day. Bounded, whatever the traffic; counts of two windows may be added."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from service.artifact.array_types import Float64Array, IntArray
from service.watch.item_groups import OTHER
from service.watch.statistics import LIST_SCORES, OF_EVENTS, OF_LISTS, VISITS, effective, entropy_bits

# Subjects are counted by hash. More subjects than places look like fewer, which makes thresholds larger, never smaller.
PLACES = 4096
# Bins of probabilities.
PREDICTED_BINS = 10


class Window:
    """Counts of one window.

    Attributes:
        counts: [bins] int64 by statistic.
        lists: Number of lists.
        events: Number of events.
        listed: [places] int64 items listed, by the hash of the subject.
        acted: [places] int64 events, by the hash of the subject.
        shown: [items] uint32, how often each item was listed; it grows with the catalogue.
        surprisal: Sum of the novelty of all items listed, in bits.
        followed: [bins of scores] int64 listed items that an event followed, by the bin of their score.
        predicted: [3, bins] of these, by the probability that the scores of their list give its first item: how many,
            the sum of the probabilities, and how many were the first item.
    """

    def __init__(self, bins: Mapping[str, int], n_items: int) -> None:
        self.counts = {name: np.zeros(n, np.int64) for name, n in bins.items()}
        self.lists = self.events = 0
        self.listed, self.acted = np.zeros(PLACES, np.int64), np.zeros(PLACES, np.int64)
        self.shown = np.zeros(n_items, np.uint32)
        self.surprisal = 0.0
        self.followed = np.zeros(bins[LIST_SCORES], np.int64)
        self.predicted = np.zeros((3, PREDICTED_BINS), np.float64)

    def moved(
        self, before: Mapping[str, tuple[str, ...]], now: Mapping[str, tuple[str, ...]], rows: IntArray, n_items: int
    ) -> Window:
        """Returns a window that another model goes on with.

        Events, visits and the items listed are what they are under any model; categories without a group of their own
        now count as others. What says how a model lists, and what its scores are worth, begins anew.

        Args:
            before: Names of the bins of this window.
            now: Names of the bins of the new one.
            rows: [n] index of each item under the other model, −1 for those that it does not know.
            n_items: Number of exported items of the other model.
        """
        window = Window({name: len(bins) for name, bins in now.items()}, max(n_items, int(rows.max(initial=-1)) + 1))
        for name in (VISITS, *OF_EVENTS):
            place = {one: n for n, one in enumerate(now[name])}
            for one, count in zip(before[name], self.counts[name].tolist(), strict=True):
                window.counts[name][place[one] if one in place else place[OTHER]] += count
        window.lists, window.events = self.lists, self.events
        window.listed, window.acted = self.listed.copy(), self.acted.copy()
        n = min(len(rows), len(self.shown))
        known = rows[:n] >= 0
        np.add.at(window.shown, rows[:n][known], self.shown[:n][known])
        return window

    def count(self, statistic: str, places: IntArray) -> None:
        """Counts values of a statistic by their bins."""
        counts = self.counts[statistic]
        counts += np.bincount(places, minlength=len(counts))

    def count_predicted(self, first: Float64Array, came: Float64Array) -> None:
        """Counts [n] probabilities of the first item of a list, and [n] whether the event was on it."""
        places = np.minimum((first * PREDICTED_BINS).astype(np.int64), PREDICTED_BINS - 1)
        for row, values in enumerate((np.ones(len(first)), first, came)):
            np.add.at(self.predicted[row], places, values)

    def show(self, items: IntArray) -> None:
        """Counts listed items."""
        more = int(items.max(initial=-1)) + 1 - len(self.shown)
        if more > 0:
            self.shown = np.concatenate([self.shown, np.zeros(more, np.uint32)])
        np.add.at(self.shown, items, 1)

    def shares(self, statistic: str) -> Float64Array | None:
        """Returns [bins] the distribution of a statistic; None if nothing was counted."""
        counts = self.counts[statistic]
        total = int(counts.sum())
        return counts / total if total else None

    def size(self, statistic: str) -> float:
        """Returns the effective number of subjects behind a statistic."""
        if statistic == VISITS:  # each counts once an hour
            return min(float(self.counts[VISITS].sum()), effective(self.listed))
        if statistic not in OF_LISTS:
            return effective(self.acted)
        part = self.counts[statistic].sum() / max(1, self.listed.sum())
        return effective(self.listed) * min(1.0, float(part))

    def coverage(self, n_items: int) -> float:
        """Returns the share of the catalogue that was listed at least once."""
        return float(np.count_nonzero(self.shown)) / max(1, n_items)

    def entropy(self) -> float:
        """Returns the entropy of the items listed, in bits: 0 if there was one only."""
        listed = self.shown[self.shown > 0]
        return float(entropy_bits(listed / listed.sum())) if len(listed) else 0.0

    def overlap(self, other: Window) -> float | None:
        """Returns Σ min(p, q) over the shares p, q of items in the lists of two windows; None if one has no lists."""
        a, b = self.shown, other.shown
        if not a.any() or not b.any():
            return None
        n = min(len(a), len(b))
        return float(np.minimum(a[:n] / a.sum(), b[:n] / b.sum()).sum())

    def score_auc(self) -> float | None:
        """Returns how often an item that was followed by an event has a higher score than a listed one (ties half).

        At 0.5 scores say nothing about what users take. None if nothing was followed, or no score is known.
        """
        shown, followed = self.counts[LIST_SCORES], self.followed
        pairs = int(shown.sum()) * int(followed.sum())
        if not pairs:
            return None
        below = np.cumsum(shown) - shown
        return float(((below + shown / 2.0) * followed).sum() / pairs)

    def score_calibration(self) -> float | None:
        """Returns the expected calibration error of the first item, None if nothing was followed.

        That is Σ |Σ probabilities − first items| over the bins, divided by the events (Guo et al., On calibration of
        modern neural networks, ICML 2017).
        """
        number, predicted, came = self.predicted
        total = float(number.sum())
        return float(np.abs(predicted - came).sum()) / total if total else None
