"""The groups of items by which lists and events are counted: popularity bands and categories. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from service.artifact.array_types import FloatArray, IntArray
from service.artifact.items.catalogue import Catalogue
from service.artifact.scorers.popularity import Popularity
from service.engine.interface import CatalogueView

# The most popular items that have half of all events, those that have the next 30 %, the others; items without events;
# items that came after the export; items that the catalogue does not have.
BANDS = ("head", "middle", "tail", "cold", "new", "unknown")
_MIDDLE_FROM, _TAIL_FROM = 0.5, 0.8
_HEAD, _MIDDLE, _TAIL, _COLD, NEW, UNKNOWN = range(len(BANDS))
# Categories with a group of their own: the most popular ones. The others are one group.
CATEGORIES_MAX = 14
OTHER, NONE = "other", "none"
UNKNOWN_ITEM = -1

_Codes = npt.NDArray[np.int8]


@dataclass(frozen=True, eq=False)
class ItemGroups:
    """The groups of the items that a model was exported with.

    Attributes:
        categories: Names of the groups by category; the last two are all others, and items without one.
        band: [n] place of each item's popularity band in `BANDS`.
        category: [n] place of each item's first category in `categories`.
        surprisal: [n] float32 −log2 of each item's share of events, one event added to each: its novelty, in bits.
    """

    categories: tuple[str, ...]
    band: _Codes
    category: _Codes
    surprisal: FloatArray

    @classmethod
    def of(cls, catalogue: CatalogueView, popularity: Popularity) -> Self:
        """Groups the exported items of a catalogue.

        Args:
            catalogue: The items; those after the first `popularity.n_items` are new.
            popularity: How often each exported item was interacted with.
        """
        n = popularity.n_items
        names, category = _by_category(catalogue, popularity.share)
        counts = np.rint(popularity.share.astype(np.float64) * popularity.n_events)
        surprisal = -np.log2((counts + 1.0) / (popularity.n_events + n)) if n else counts
        return cls(names, _bands(popularity), category, surprisal.astype(np.float32))

    def bands_of(self, items: IntArray) -> IntArray:
        """Returns [m] the bands of items [m]; `UNKNOWN_ITEM` stands for an item that the catalogue does not have."""
        return self._of(self.band, items, NEW, UNKNOWN)

    def categories_of(self, items: IntArray) -> IntArray:
        """Returns [m] the categories of items [m]. Those of new items are not known here: they have none."""
        none = len(self.categories) - 1
        return self._of(self.category, items, none, none)

    def surprisals_of(self, items: IntArray) -> FloatArray:
        """Returns [m] the novelty of items [m], in bits; new items have that of an item without events."""
        most = float(self.surprisal.max(initial=0.0))
        kept = np.clip(items, 0, max(0, len(self.surprisal) - 1))
        known = (items >= 0) & (items < len(self.surprisal))
        return np.where(known, self.surprisal[kept], most).astype(np.float32)

    def _of(self, codes: _Codes, items: IntArray, new: int, unknown: int) -> IntArray:
        n = len(codes)
        found = np.full(len(items), new, np.int64)
        known = (items >= 0) & (items < n)
        found[known] = codes[items[known]]
        found[items < 0] = unknown
        return found


def _bands(popularity: Popularity) -> _Codes:
    share = popularity.share[popularity.order].astype(np.float64)
    before = np.cumsum(share) - share
    band = np.empty(popularity.n_items, np.int8)
    band[popularity.order] = np.select(
        [share <= 0, before < _MIDDLE_FROM, before < _TAIL_FROM], [_COLD, _HEAD, _MIDDLE], _TAIL
    )
    return band


def _by_category(catalogue: CatalogueView, share: FloatArray) -> tuple[tuple[str, ...], _Codes]:
    """The names of the groups, and the group of each item."""
    first, values = _first_values(catalogue, len(share))
    weight = np.zeros(len(values) + 1)
    np.add.at(weight, first, share)  # -1, without a category, is the last one
    largest = np.argsort(-weight[:-1], kind="stable")[:CATEGORIES_MAX]
    names = tuple(values[place] for place in largest.tolist())
    group = np.full(len(values) + 1, len(names), np.int8)
    group[largest] = np.arange(len(names), dtype=np.int8)
    group[-1] = len(names) + 1
    return (*names, OTHER, NONE), group[first]


def _first_values(catalogue: CatalogueView, n: int) -> tuple[IntArray, list[str]]:
    """The place of the first category of each item in the list of values; -1 for an item without one."""
    if isinstance(catalogue, Catalogue):
        facet = catalogue.columns.facets["category"]
        first = np.full(n, -1, np.int64)
        has = np.flatnonzero(facet.start[1 : n + 1] > facet.start[:n])
        first[has] = facet.code[facet.start[has]]
        return first, [facet.names.text(place) for place in range(len(facet.names))]
    number: dict[str, int] = {}
    found = (next(iter(catalogue.items[item].category), None) for item in range(n))
    places = [-1 if value is None else number.setdefault(value, len(number)) for value in found]
    return np.array(places, np.int64), list(number)
