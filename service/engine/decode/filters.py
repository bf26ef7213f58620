"""The masks of filters: which items, and which nodes of the trie, a filter allows.

Values of one field are OR-ed, fields are AND-ed, and stock is AND-ed to the result, item by item. Every mask is counted
from the leaves: an AND of two node masks would leave dead ends.

A mask is built once, by whoever calls `FilterTable.build`, and has a place until it is the least recently used. The
decoder never builds: it pins the masks of its run, so that no place is written to while a run reads it.
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from service.artifact.array_types import BoolArray, IntArray
from service.artifact.items.catalogue import Catalogue
from service.artifact.items.filter_conditions import Filters
from service.artifact.items.item_filters import filter_key
from service.artifact.trie import Counts, Trie
from service.common.errors import FilterNotReady
from service.engine.held_filters import FilterUsage
from service.engine.jobs import EVERYTHING, NOTHING

MASK_BYTES_MAX = 128 * 2**20
PLACES_MAX = 1024
# Filters that no item matches are remembered by their key alone.
_NOTHING_MAX = 4096
# What the values of one filter may take.
_VALUES_BYTES = 16 * 2**10
_FIXED = 2
# A place is pinned for one run of the decoder. A run that takes longer than this is stuck.
PINNED_S = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """What one filter allows.

    Attributes:
        id: The filter's id, for `ListRequest.filter_id`.
        place: The place of its node masks on the device.
        values: The filter.
        owner: Who had it built.
        allowed: [items] whether each item is allowed.
        counts: Allowed leaves under every node, for levels 1 … K.
        waiting: [m] whether each item that waits outside the trie (`service.engine.decode.delta_table`) is allowed.
        item_ok: [rows] whether each row of the item table is allowed; empty if no graph scores the whole table.
    """

    id: int
    place: int
    values: Filters
    owner: str
    allowed: BoolArray
    counts: list[Counts]
    waiting: BoolArray
    item_ok: BoolArray

    def node_ok(self, level: int) -> BoolArray:
        """Returns [n_{level+1}] whether each node allows an item below it."""
        ok: BoolArray = self.counts[level] > 0
        return ok

    @property
    def nbytes(self) -> int:
        """Bytes in the host's memory."""
        return sum(a.nbytes for a in (self.allowed, *self.counts, self.waiting, self.item_ok))


class MaskPlaces(Protocol):
    """Where masks lie for the graphs (`service.engine.decode.mask_arena`)."""

    @property
    def place_bytes(self) -> int:
        """Bytes of one place."""
        ...

    def open(self, places: int) -> None:
        """Makes the places, once, before the first mask is written."""
        ...

    def write(self, masks: Sequence[Mask]) -> None:
        """Writes masks to their places. No run may read these places meanwhile."""
        ...


class FilterTable:
    """Masks of filters over one trie and one catalogue. Safe to call from several threads.

    A cache limited by bytes: the least recently used mask goes. An owner of more than half of the places gives up its
    own, so that nobody can drive out the filters of all others. A mask is never changed, so callers may keep it; its
    place may be another's after a while.
    """

    def __init__(
        self,
        trie: Trie,
        catalogue: Catalogue,
        *,
        waiting: IntArray | None = None,
        rows: int = 0,
        bytes_max: int = MASK_BYTES_MAX,
        places: MaskPlaces | None = None,
        ids: Iterator[int] | None = None,
    ) -> None:
        """Computes the masks of the two fixed ids.

        Args:
            trie: The trie of the items.
            catalogue: The items' fields and stock.
            waiting: [m] the items that are not in the trie yet.
            rows: Rows of the item table to mask as well.
            bytes_max: Size of the cache, its places included.
            places: Where masks lie for the graphs; None if no graph reads them.
            ids: Ids that no table before this one has given out.
        """
        self._trie, self._catalogue = trie, catalogue
        self._waiting = np.zeros(0, np.int64) if waiting is None else waiting
        self._in_trie = _in_trie(trie, rows)
        self._bytes_max, self._places = bytes_max, places
        self._ids = itertools.count(_FIXED) if ids is None else ids
        self._changed = threading.Condition()
        self._masks: OrderedDict[bytes, Mask] = OrderedDict()
        self._nothing: OrderedDict[bytes, None] = OrderedDict()
        self._pins: Counter[int] = Counter()
        self._evicted = 0
        self._owned: Counter[str] = Counter()
        everything = self._mask(EVERYTHING, EVERYTHING, {}, "", catalogue.allowed({}))
        nothing = self._mask(NOTHING, NOTHING, {}, "", np.zeros(len(catalogue), np.bool_))
        self._by_id = {EVERYTHING: everything, NOTHING: nothing}
        self._mask_bytes = everything.nbytes + _VALUES_BYTES + (places.place_bytes if places else 0)
        most = max(1, min(bytes_max // self._mask_bytes, PLACES_MAX))
        self._most = most
        self._free = list(range(_FIXED, _FIXED + most))
        if places is not None:
            places.open(_FIXED + most)
            places.write([everything, nothing])

    def renewed(
        self,
        trie: Trie,
        catalogue: Catalogue,
        waiting: IntArray | None = None,
        rows: int = 0,
        places: MaskPlaces | None = None,
    ) -> FilterTable:
        """Returns a table over a changed catalogue or stock, in which filters keep their ids.

        The masks in use are computed at once, which takes long if there are many: do not call it on the event loop.
        """
        table = FilterTable(
            trie, catalogue, waiting=waiting, rows=rows, bytes_max=self._bytes_max, places=places, ids=self._ids
        )
        with self._changed:
            in_use = list(self._masks.items())[-len(table._free) :]
        masks = {
            key: table._mask(old.id, table._free.pop(0), old.values, old.owner, catalogue.allowed(old.values))
            for key, old in in_use
        }
        table._masks.update(masks)
        table._by_id |= {mask.id: mask for mask in masks.values()}
        table._owned.update(mask.owner for mask in masks.values())
        if places is not None and masks:
            places.write(list(masks.values()))
        return table

    def held(self, values: Filters) -> Mask | None:
        """Returns the mask of a filter if there is one; it is the most recently used now."""
        if not values:
            return self._by_id[EVERYTHING]
        key = filter_key(values)
        with self._changed:
            if key in self._masks:
                self._masks.move_to_end(key)
                return self._masks[key]
            return self._by_id[NOTHING] if key in self._nothing else None

    def build(self, values: Filters, owner: str = "") -> Mask:
        """Returns the mask of a filter, and computes it if it is new. Takes long: do not call it on the event loop.

        Args:
            values: The filter.
            owner: Who wants it, if it is new.

        Raises:
            ValueError: No item has such a field.
            FilterNotReady: Runs of the decoder hold every place.
        """
        wanted = self._catalogue.filter(values)
        held = self._by_id[NOTHING] if wanted.nothing else self.held(wanted.values)
        if held is not None:
            return held
        allowed = self._catalogue.matches(wanted.values)
        if allowed is None or not allowed.any():
            self._remember_nothing(wanted.key)
            return self._by_id[NOTHING]
        if self._catalogue.in_stock is not None:
            allowed &= self._catalogue.in_stock
        place = self._take_place()
        try:
            mask = self._mask(next(self._ids), place, wanted.values, owner, allowed)
            if self._places is not None:
                self._places.write([mask])
        except BaseException:
            self._give_back(place)
            raise
        return self._keep(wanted.key, mask)

    def id(self, filters: Filters) -> int:
        """Returns the id of a filter, whose mask is built now if it is new.

        Raises:
            ValueError: No item has such a field.
        """
        return self.build(filters).id

    def mask(self, filter_id: int) -> Mask:
        """Returns the mask with an id.

        Raises:
            KeyError: The filter is not held any more.
        """
        with self._changed:
            return self._by_id[filter_id]

    def __contains__(self, filter_id: object) -> bool:
        """Returns whether the mask with an id is held."""
        return filter_id in self._by_id

    @contextmanager
    def pinned(self, ids: Sequence[int]) -> Iterator[list[Mask]]:
        """Yields the masks with these ids, whose places stay theirs meanwhile.

        Raises:
            FilterNotReady: One of them is not held any more.
        """
        with self._changed:
            try:
                masks = [self._by_id[number] for number in ids]
            except KeyError:
                raise FilterNotReady("the filter was dropped before its list was decoded") from None
            # The first places are never given away.
            places = {mask.place for mask in masks if mask.place >= _FIXED}
            for place in places:
                self._pins[place] += 1
        try:
            yield masks
        finally:
            if places:
                with self._changed:
                    for place in places:
                        self._pins[place] -= 1
                    self._changed.notify_all()

    @property
    def usage(self) -> FilterUsage:
        """What the cache holds."""
        with self._changed:
            return FilterUsage(len(self._masks), len(self._masks) * self._mask_bytes, self._evicted)

    def _take_place(self) -> int:
        """A free place, or that of a mask that no run reads and that may go."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._free or self._unpinned() is not None, PINNED_S):
                raise FilterNotReady("runs of the decoder hold the places of all filters")
            if self._free:
                return self._free.pop()
            key = self._unpinned()
            assert key is not None  # noqa: S101 - waited for above
            dropped = self._masks.pop(key)
            del self._by_id[dropped.id]
            self._owned -= Counter([dropped.owner])
            self._evicted += 1
            return dropped.place

    def _unpinned(self) -> bytes | None:
        idle = [(key, mask.owner) for key, mask in self._masks.items() if not self._pins[mask.place]]
        crowding = {owner for owner, held in self._owned.items() if 2 * held > self._most}
        own = (key for key, owner in idle if owner in crowding)
        return next(own, idle[0][0] if idle else None)

    def _give_back(self, place: int) -> None:
        with self._changed:
            self._free.append(place)
            self._changed.notify_all()

    def _keep(self, key: bytes, mask: Mask) -> Mask:
        """Returns the mask in the cache: another thread's, if that was first."""
        with self._changed:
            kept = self._masks.setdefault(key, mask)
            if kept is mask:
                self._by_id[mask.id] = mask
                self._owned[mask.owner] += 1
        if kept is not mask:
            self._give_back(mask.place)
        return kept

    def _remember_nothing(self, key: bytes) -> None:
        with self._changed:
            self._nothing[key] = None
            if len(self._nothing) > _NOTHING_MAX:
                self._nothing.popitem(last=False)

    def _mask(self, number: int, place: int, values: Filters, owner: str, allowed: BoolArray | None) -> Mask:
        if allowed is None:
            allowed = np.ones(len(self._catalogue), np.bool_)
        item_ok = self._in_trie.copy()
        known = min(len(item_ok), len(allowed))
        item_ok[:known] &= allowed[:known]
        counts = self._trie.node_counts(allowed)
        return Mask(number, place, values, owner, allowed, counts, allowed[self._waiting], item_ok)


def _in_trie(trie: Trie, rows: int) -> BoolArray:
    """Marks the items with a leaf among the first `rows` indices."""
    in_trie = np.zeros(rows, np.bool_)
    leaf = trie.item_leaf[:rows]
    in_trie[: len(leaf)] = leaf >= 0
    return in_trie
