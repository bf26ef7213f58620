"""Counts lists and events of one model into windows, many at a time: array work of microseconds for each list. Pure.

What waits to be counted names nobody and keeps no profile alive, so an erasure need not look here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from service.artifact.array_types import Float64Array, FloatArray, IntArray
from service.artifact.features import SIGNAL_TYPES, type_index
from service.watch.item_groups import UNKNOWN_ITEM, ItemGroups
from service.watch.remembered import Remembered
from service.watch.statistics import (
    EVENT_CATEGORIES,
    EVENT_POPULARITY,
    EVENT_TYPE,
    LIST_CATEGORIES,
    LIST_POPULARITY,
    LIST_REPEATS,
    LIST_SCORES,
    SCORED,
    VISITS,
    bins_of,
    softmax,
    visit_bin,
)
from service.watch.window import PLACES, Window


def place_of(subject: str) -> int:
    """Returns the place at which a subject, as keys have it, is counted in the windows of this process."""
    return hash(subject) % PLACES


class ShownList(NamedTuple):
    """A list that was shown.

    Attributes:
        list_id: Its id.
        place: Place of its subject (`place_of`), or of the list's own id if it is nobody's.
        segment: Segment of the user.
        items: [n] catalogue indices.
        scores: [n] scores of the model's best list; None for any other.
        seen: [m] catalogue indices of the items that the user had seen, unique and ascending.
        history: Number of events in the user's history.
    """

    list_id: str
    place: int
    segment: str
    items: IntArray
    scores: FloatArray | None
    seen: IntArray
    history: int


class SeenEvent(NamedTuple):
    """An acknowledged event.

    Attributes:
        place: Place of its subject (`place_of`).
        type: Its type.
        item_id: Its item; None for a search or an impression of a whole list.
        list_id: The list it names.
    """

    place: int
    type: str
    item_id: str | None
    list_id: str | None


class _Scored(NamedTuple):
    """What is kept of a list, for the events that name it.

    Attributes:
        items: [≤ SCORED] catalogue indices.
        bins: [≤ SCORED] bins of their scores.
        scores: [n] scores of the whole list.
    """

    items: IntArray
    bins: IntArray
    scores: FloatArray

    @property
    def first(self) -> float:
        """Probability of the first item by the softmax of the list's scores."""
        return float(softmax(self.scores.astype(np.float64))[0]) if len(self.scores) else 0.0


class Counting:
    """Counts what is shown and done under one model."""

    def __init__(self, groups: ItemGroups, score_edges: Float64Array | None) -> None:
        """Starts empty.

        Args:
            groups: The groups of the model's items.
            score_edges: Scores between the bins; None if they are not known, so that no score is counted.
        """
        self.groups, self._edges = groups, score_edges
        self.bins = bins_of(groups)
        self._sizes = {name: len(bins) for name, bins in self.bins.items()}
        self._came = np.zeros(PLACES, np.bool_)
        self._remembered = Remembered[_Scored]()

    def window(self) -> Window:
        """Returns an empty window."""
        return Window(self._sizes, len(self.groups.band))

    def go_on(self, before: Counting) -> None:
        """Takes over who has come this hour, when another model is in service."""
        self._came = before._came

    def next_hour(self) -> None:
        """Counts the next visit of every user again."""
        self._came[:] = False

    def lists(
        self, lists: Sequence[ShownList], windows: Iterable[Window], now_s: float
    ) -> Mapping[str, tuple[IntArray, IntArray]]:
        """Counts lists.

        Args:
            lists: The lists.
            windows: Where to count.
            now_s: Epoch seconds.

        Returns:
            Items listed by popularity band, and by category, for each segment.
        """
        items = np.concatenate([one.items for one in lists]).astype(np.int64)
        lengths = np.array([len(one.items) for one in lists], np.int64)
        places = np.array([one.place for one in lists], np.int64)
        bands, categories = self.groups.bands_of(items), self.groups.categories_of(items)
        seen = _among(items, np.repeat(np.arange(len(lists)), lengths), [one.seen for one in lists])
        scores = self._scored(lists, now_s)
        visits = self._visits(lists, places)
        surprisal = float(self.groups.surprisals_of(items).sum())
        for window in windows:
            window.lists += len(lists)
            np.add.at(window.listed, places, lengths)
            window.show(items)
            window.surprisal += surprisal
            window.count(LIST_POPULARITY, bands)
            window.count(LIST_CATEGORIES, categories)
            window.count(LIST_REPEATS, seen)
            window.count(LIST_SCORES, scores)
            window.count(VISITS, visits)
        return self._by_segment([one.segment for one in lists], lengths, bands, categories)

    def events(
        self, events: Sequence[SeenEvent], index: Mapping[str, int], windows: Iterable[Window], now_s: float
    ) -> None:
        """Counts events on items that are part of histories.

        Args:
            events: The events.
            index: Index of each item of the catalogue by its id.
            windows: Where to count.
            now_s: Epoch seconds.
        """
        kept = [event for event in events if event.item_id is not None and event.type not in SIGNAL_TYPES]
        if not kept:
            return
        items = np.array([index.get(event.item_id or "", UNKNOWN_ITEM) for event in kept], np.int64)
        places = np.array([event.place for event in kept], np.int64)
        types = np.array([type_index(event.type) for event in kept], np.int64)
        followed, predicted, came = self._followed(kept, items, now_s)
        for window in windows:
            window.events += len(kept)
            np.add.at(window.acted, places, 1)
            window.count(EVENT_TYPE, types)
            window.count(EVENT_POPULARITY, self.groups.bands_of(items))
            window.count(EVENT_CATEGORIES, self.groups.categories_of(items))
            window.followed += np.bincount(followed, minlength=len(window.followed))
            window.count_predicted(predicted, came)

    def _scored(self, lists: Sequence[ShownList], now_s: float) -> IntArray:
        """The bins of the scores of lists, which are remembered with them if they are in the sample."""
        if self._edges is None:
            return np.zeros(0, np.int64)
        scored = [(one, one.scores) for one in lists if one.scores is not None]
        firsts = [scores[:SCORED] for _, scores in scored]
        together = np.concatenate([np.zeros(0, np.float32), *firsts])
        bins = np.searchsorted(self._edges, together, side="right").astype(np.int64)
        at, kept = 0, []
        for (one, scores), first in zip(scored, firsts, strict=True):
            end = at + len(first)
            if self._remembered.takes(one.list_id):
                # Copies: the arrays of a list are parts of those of its whole run.
                kept.append((one.list_id, _Scored(one.items[:SCORED].copy(), bins[at:end].copy(), scores.copy())))
            at = end
        self._remembered.add_all(kept, now_s)
        return bins

    def _visits(self, lists: Sequence[ShownList], places: IntArray) -> IntArray:
        """The bins of the histories of users who come for the first time this hour."""
        _, first = np.unique(places, return_index=True)
        came = first[~self._came[places[first]]]
        self._came[places[came]] = True
        return visit_bin(np.array([lists[row].history for row in came.tolist()], np.int64))

    def _followed(
        self, events: Sequence[SeenEvent], items: IntArray, now_s: float
    ) -> tuple[IntArray, Float64Array, Float64Array]:
        """Of listed items that events name: bins of their scores, what their lists predicted, and what came.

        Returns:
            [n] bins, [n] probabilities of the first item, and [n] whether it was the first item.
        """
        bins, predicted, came = list[int](), list[float](), list[bool]()
        for event, item in zip(events, items.tolist(), strict=True):
            one = self._remembered.get(event.list_id or "", now_s)
            if one is None:
                continue
            (places,) = np.nonzero(one.items == item)
            for place in places.tolist():
                bins.append(int(one.bins[place]))
                predicted.append(one.first)
                came.append(place == 0)
        return np.array(bins, np.int64), np.array(predicted, np.float64), np.array(came, np.float64)

    def _by_segment(
        self, segments: Sequence[str], lengths: IntArray, bands: IntArray, categories: IntArray
    ) -> Mapping[str, tuple[IntArray, IntArray]]:
        names = sorted(set(segments))
        of = np.repeat(np.searchsorted(names, segments), lengths)
        n_bands, n_categories = self._sizes[LIST_POPULARITY], self._sizes[LIST_CATEGORIES]
        return {
            name: (
                np.bincount(bands[of == place], minlength=n_bands),
                np.bincount(categories[of == place], minlength=n_categories),
            )
            for place, name in enumerate(names)
        }


def _among(items: IntArray, of: IntArray, seen: Sequence[IntArray]) -> IntArray:
    """[n] 1 for each of the items [n] of lists `of` [n] that is among what its list's user had seen, ascending each."""
    lengths = [len(one) for one in seen]
    if not sum(lengths):
        return np.zeros(len(items), np.int64)
    every = np.concatenate(seen).astype(np.int64)
    # One ascending row of numbers: the place of the list, then the item.
    span = int(max(items.max(initial=0), every.max())) + 1
    every += np.repeat(np.arange(len(seen)), lengths) * span
    asked = items + of * span
    found = np.minimum(np.searchsorted(every, asked), len(every) - 1)
    among: IntArray = (every[found] == asked).astype(np.int64)
    return among
