"""The items that filters allow, as masks over the nodes of the trie.

Values of one field are OR-ed, fields are AND-ed, and stock is AND-ed to the result, item by item. Every mask is counted
from the leaves: an AND of two node masks would leave dead ends.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.artifact.array_types import BoolArray, IntArray
from service.artifact.catalogue import Catalogue
from service.artifact.item_filters import Filters, filter_key
from service.artifact.trie import Counts, Trie
from service.engine.jobs import EVERYTHING

NOTHING = 1  # shared by all filters that no item matches: callers can invent any number of those
_IDS_MAX = 10_000
_MASK_BYTES_MAX = 256 * 2**20


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """What one filter allows.

    Attributes:
        counts: Allowed leaves under every node, for levels 1 … K.
        node_ok: The same as bytes for the graph: 1 if there are any.
        waiting: [m] whether each item that waits outside the trie (`service.engine.decode.delta_table`) is allowed.
        item_ok: [rows] whether each row of the item table is allowed; empty if no graph scores the whole table.
    """

    counts: list[Counts]
    node_ok: list[npt.NDArray[np.uint8]]
    waiting: BoolArray
    item_ok: BoolArray

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        # The last level's counts are its bytes.
        nodes = sum(a.nbytes for a in self.counts) + sum(a.nbytes for a in self.node_ok[:-1])
        return nodes + self.waiting.nbytes + self.item_ok.nbytes


class _FilterIds:
    """The ids of filters. They outlive a change of stock or catalogue, so that a request keeps its id."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._ids: OrderedDict[bytes, int] = OrderedDict()
        self._filters: dict[int, Filters] = {}
        self._next = itertools.count(NOTHING + 1)

    def get(self, filters: Filters) -> int | None:
        with self.lock:
            key = filter_key(filters)
            if key in self._ids:
                self._ids.move_to_end(key)
            return self._ids.get(key)

    def add(self, filters: Filters) -> int:
        with self.lock:
            key = filter_key(filters)
            if key not in self._ids:
                self._ids[key] = filter_id = next(self._next)
                self._filters[filter_id] = {name: tuple(values) for name, values in filters.items()}
            if len(self._ids) > _IDS_MAX:
                _, forgotten = self._ids.popitem(last=False)
                del self._filters[forgotten]
            return self._ids[key]

    def filters(self, filter_id: int) -> Filters:
        with self.lock:
            return self._filters[filter_id]


class FilterTable:
    """Masks by filter id, over one trie and one catalogue. Safe to call from several threads.

    A cache limited by bytes: the least recently used masks are dropped, and computed again when they are needed. A mask
    is never changed, so callers may keep it and compare it by identity.
    """

    def __init__(
        self,
        trie: Trie,
        catalogue: Catalogue,
        *,
        waiting: IntArray | None = None,
        rows: int = 0,
        mask_bytes_max: int = _MASK_BYTES_MAX,
        ids: _FilterIds | None = None,
    ) -> None:
        """Computes the masks of the two fixed ids.

        Args:
            trie: The trie of the items.
            catalogue: The items' fields and stock.
            waiting: [m] the items that are not in the trie yet.
            rows: Rows of the item table to mask as well.
            mask_bytes_max: Size of the cache.
            ids: The ids given out so far, from the table that this one replaces.
        """
        self._trie, self._catalogue = trie, catalogue
        self._waiting = np.zeros(0, np.int64) if waiting is None else waiting
        self._in_trie = _in_trie(trie, rows)
        self._mask_bytes_max = mask_bytes_max
        self._ids = ids or _FilterIds()
        self._lock = threading.Lock()
        self._masks: OrderedDict[int, Mask] = OrderedDict()
        self._bytes = 0
        nothing = np.zeros(len(catalogue), np.bool_)
        self._fixed = {EVERYTHING: self._mask(catalogue.allowed({})), NOTHING: self._mask(nothing)}

    def renewed(self, trie: Trie, catalogue: Catalogue, waiting: IntArray | None = None, rows: int = 0) -> FilterTable:
        """Returns a table with the same ids over a changed catalogue or stock.

        The masks in use are computed at once, which takes long if there are many: do not call it on the event loop.
        """
        table = FilterTable(
            trie, catalogue, waiting=waiting, rows=rows, mask_bytes_max=self._mask_bytes_max, ids=self._ids
        )
        with self._lock:
            in_use = list(self._masks)
        for filter_id in in_use:
            try:
                table.mask(filter_id)
            except KeyError:  # forgotten in the meantime
                continue
        return table

    def id(self, filters: Filters) -> int:
        """Returns the id of a filter; a new filter's mask is computed now.

        Raises:
            ValueError: No item has such a field.
        """
        known = self._ids.get(filters)
        if known is not None:
            return known
        matching = self._catalogue.matches(filters)
        if matching is None:
            return EVERYTHING
        if not matching.any():
            return NOTHING
        filter_id = self._ids.add(filters)
        self._keep(filter_id, self._mask(self._catalogue.allowed(filters)))
        return filter_id

    def mask(self, filter_id: int) -> Mask:
        """Returns the mask of a filter.

        Raises:
            KeyError: The id was never given out, or has been unused for long.
        """
        if filter_id in self._fixed:
            return self._fixed[filter_id]
        with self._lock:
            if filter_id in self._masks:
                self._masks.move_to_end(filter_id)
                return self._masks[filter_id]
        return self._keep(filter_id, self._mask(self._catalogue.allowed(self._ids.filters(filter_id))))

    def _keep(self, filter_id: int, mask: Mask) -> Mask:
        """Returns the mask in the cache: another thread's, if that was first."""
        with self._lock:
            if filter_id not in self._masks:
                self._masks[filter_id] = mask
                self._bytes += mask.nbytes
            kept = self._masks[filter_id]
            while self._bytes > self._mask_bytes_max and len(self._masks) > 1:
                _, dropped = self._masks.popitem(last=False)
                self._bytes -= dropped.nbytes
            return kept

    def _mask(self, allowed: BoolArray | None) -> Mask:
        if allowed is None:
            allowed = np.ones(len(self._catalogue), np.bool_)
        counts = self._trie.node_counts(allowed)
        node_ok = [(count > 0).view(np.uint8) for count in counts[:-1]]
        item_ok = self._in_trie.copy()
        known = min(len(item_ok), len(allowed))
        item_ok[:known] &= allowed[:known]
        return Mask(counts, [*node_ok, np.asarray(counts[-1], np.uint8)], allowed[self._waiting], item_ok)


def _in_trie(trie: Trie, rows: int) -> BoolArray:
    """Marks the items with a leaf among the first `rows` indices."""
    in_trie = np.zeros(rows, np.bool_)
    leaf = trie.item_leaf[:rows]
    in_trie[: len(leaf)] = leaf >= 0
    return in_trie
