"""What may be recommended, as node masks of the trie: one row a filter, computed from the leaves, kept by filter."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from export.catalogue import Catalogue
from export.trie import IntArray, Trie

Filters = Mapping[str, Sequence[str]]

EVERYTHING = 0
NOTHING = 1  # every filter that allows no item: callers can invent as many of those as they like
_IDS_MAX = 10_000
_MASK_BYTES_MAX = 256 * 2**20


@dataclass(frozen=True, slots=True)
class Mask:
    """Allowed leaves under every node of levels 1 … K, and the same as bytes for the graph."""

    counts: list[IntArray]
    node_ok: list[npt.NDArray[np.uint8]]

    @property
    def nbytes(self) -> int:
        return sum(a.nbytes for a in self.counts) + sum(a.nbytes for a in self.node_ok)


class FilterTable:
    """Masks by filter id. Id 0 allows everything. Safe to call from several threads.

    Masks are kept by bytes, the least recently used go first and are computed again when they are asked for.
    """

    def __init__(self, trie: Trie, catalogue: Catalogue, *, mask_bytes_max: int = _MASK_BYTES_MAX) -> None:
        self._trie, self._catalogue = trie, catalogue
        self._mask_bytes_max = mask_bytes_max
        self._lock = threading.Lock()
        self._next = NOTHING + 1
        self._ids: OrderedDict[str, int] = OrderedDict()
        self._filters: dict[int, Filters] = {}
        self._masks: OrderedDict[int, Mask] = OrderedDict()
        self._bytes = 0
        self._fixed = {number: self._mask(np.full(trie.n_items, number == EVERYTHING)) for number in (0, 1)}

    def id(self, filters: Filters) -> int:
        """The id of a filter; its mask is computed at its first use. Raises ValueError for an unknown field."""
        key = repr(sorted((name, sorted(set(values))) for name, values in filters.items()))
        with self._lock:
            if key in self._ids:
                self._ids.move_to_end(key)
                return self._ids[key]
        allowed = self._catalogue.allowed(filters)
        if allowed is None:
            return EVERYTHING
        if not allowed.any():
            return NOTHING
        mask = self._mask(allowed)
        with self._lock:
            number = self._ids.setdefault(key, self._next)
            if number == self._next:
                self._next += 1
                self._filters[number] = {name: tuple(values) for name, values in filters.items()}
            if len(self._ids) > _IDS_MAX:
                _, forgotten = self._ids.popitem(last=False)
                del self._filters[forgotten]
            self._keep(number, mask)
        return number

    def mask(self, number: int) -> Mask:
        """Raises KeyError for an id that was never given out, or is long unused."""
        if number in self._fixed:
            return self._fixed[number]
        with self._lock:
            if number in self._masks:
                self._masks.move_to_end(number)
                return self._masks[number]
            filters = self._filters[number]
        allowed = self._catalogue.allowed(filters)
        assert allowed is not None  # noqa: S101 - an id is only given to a filter that restricts
        mask = self._mask(allowed)
        with self._lock:
            self._keep(number, mask)
        return mask

    def _keep(self, number: int, mask: Mask) -> None:
        if number not in self._masks:
            self._masks[number] = mask
            self._bytes += mask.nbytes
        while self._bytes > self._mask_bytes_max and len(self._masks) > 1:
            _, dropped = self._masks.popitem(last=False)
            self._bytes -= dropped.nbytes

    def _mask(self, allowed: npt.NDArray[np.bool_]) -> Mask:
        counts = self._trie.node_counts(allowed)
        return Mask(counts, [(count > 0).astype(np.uint8) for count in counts])
