"""What may be recommended, as node masks of the trie: one row a filter, computed from the leaves, kept by filter.

Values of one field are OR-ed, fields are AND-ed, and stock is AND-ed to all of it, item by item: an AND of two node
masks would leave dead ends, so every mask is counted from its leaves.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.artifact.array_types import BoolArray, IntArray
from service.artifact.catalogue import Catalogue
from service.artifact.trie import Counts, Trie
from service.engine.jobs import EVERYTHING

Filters = Mapping[str, Sequence[str]]

NOTHING = 1  # every filter that no item matches: callers can invent as many of those as they like
_IDS_MAX = 10_000
_MASK_BYTES_MAX = 256 * 2**20


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """Allowed leaves under every node of levels 1 … K, the same as bytes for the graph, whether each of the [m]
    items that wait outside the trie (`service.engine.decode.delta_table`) is allowed, and each [rows] row of the item table: none where
    no graph asks."""

    counts: list[Counts]
    node_ok: list[npt.NDArray[np.uint8]]
    waiting: BoolArray
    item_ok: BoolArray

    @property
    def nbytes(self) -> int:
        # The last level's counts are its bytes.
        nodes = sum(a.nbytes for a in self.counts) + sum(a.nbytes for a in self.node_ok[:-1])
        return nodes + self.waiting.nbytes + self.item_ok.nbytes


class _Names:
    """Numbers of filters. They outlive a change of stock or of the catalogue: a request keeps its number."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._numbers: OrderedDict[str, int] = OrderedDict()
        self._filters: dict[int, Filters] = {}
        self._next = itertools.count(NOTHING + 1)

    def number(self, filters: Filters) -> int | None:
        with self.lock:
            key = _key(filters)
            if key in self._numbers:
                self._numbers.move_to_end(key)
            return self._numbers.get(key)

    def add(self, filters: Filters) -> int:
        with self.lock:
            key = _key(filters)
            if key not in self._numbers:
                self._numbers[key] = number = next(self._next)
                self._filters[number] = {name: tuple(values) for name, values in filters.items()}
            if len(self._numbers) > _IDS_MAX:
                _, forgotten = self._numbers.popitem(last=False)
                del self._filters[forgotten]
            return self._numbers[key]

    def filters(self, number: int) -> Filters:
        with self.lock:
            return self._filters[number]


class FilterTable:
    """Masks by filter number over one trie and one catalogue. Number 0 allows everything in stock. Safe to call from
    several threads.

    Masks are kept by bytes, the least recently used go first and are computed again when they are asked for. A mask
    is never changed: it may be kept, and told apart, by identity.
    """

    def __init__(
        self,
        trie: Trie,
        catalogue: Catalogue,
        *,
        waiting: IntArray | None = None,
        rows: int = 0,
        mask_bytes_max: int = _MASK_BYTES_MAX,
        names: _Names | None = None,
    ) -> None:
        """`waiting` [m] are the items that are not in the trie yet; `rows` of the item table are masked as well."""
        self._trie, self._catalogue = trie, catalogue
        self._waiting = np.zeros(0, np.int64) if waiting is None else waiting
        self._in_trie = _in_trie(trie, rows)
        self._mask_bytes_max = mask_bytes_max
        self._names = names or _Names()
        self._lock = threading.Lock()
        self._masks: OrderedDict[int, Mask] = OrderedDict()
        self._bytes = 0
        nothing = np.zeros(len(catalogue), np.bool_)
        self._fixed = {EVERYTHING: self._mask(catalogue.allowed({})), NOTHING: self._mask(nothing)}

    def renewed(self, trie: Trie, catalogue: Catalogue, waiting: IntArray | None = None, rows: int = 0) -> FilterTable:
        """The same numbers over a changed catalogue or stock, with the masks in use computed already. Takes long where
        there are many: not for the event loop."""
        table = FilterTable(
            trie, catalogue, waiting=waiting, rows=rows, mask_bytes_max=self._mask_bytes_max, names=self._names
        )
        with self._lock:
            in_use = list(self._masks)
        for number in in_use:
            try:
                table.mask(number)
            except KeyError:  # forgotten in the meantime
                continue
        return table

    def id(self, filters: Filters) -> int:
        """The number of a filter; its mask is computed at its first use. Raises ValueError for an unknown field."""
        number = self._names.number(filters)
        if number is not None:
            return number
        matching = self._catalogue.matches(filters)
        if matching is None:
            return EVERYTHING
        if not matching.any():
            return NOTHING
        number = self._names.add(filters)
        self._keep(number, self._mask(self._catalogue.allowed(filters)))
        return number

    def mask(self, number: int) -> Mask:
        """Raises KeyError for a number that was never given out, or is long unused."""
        if number in self._fixed:
            return self._fixed[number]
        with self._lock:
            if number in self._masks:
                self._masks.move_to_end(number)
                return self._masks[number]
        return self._keep(number, self._mask(self._catalogue.allowed(self._names.filters(number))))

    def _keep(self, number: int, mask: Mask) -> Mask:
        """The mask that is kept: another thread's, where it was first."""
        with self._lock:
            if number not in self._masks:
                self._masks[number] = mask
                self._bytes += mask.nbytes
            kept = self._masks[number]
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
    """Which of the first `rows` indices are items with a leaf."""
    found = np.zeros(rows, np.bool_)
    leaf = trie.item_leaf[:rows]
    found[: len(leaf)] = leaf >= 0
    return found


def _key(filters: Filters) -> str:
    return repr(sorted((name, sorted(set(values))) for name, values in filters.items()))
