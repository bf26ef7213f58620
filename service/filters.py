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
_KEPT = 1024  # more than any caller remembers, so that an id in use is never evicted


@dataclass(frozen=True, slots=True)
class Mask:
    """Allowed leaves under every node of levels 1 … K, and the same as bytes for the graph."""

    counts: list[IntArray]
    node_ok: list[npt.NDArray[np.uint8]]


class FilterTable:
    """Masks by filter id. Id 0 allows everything. Safe to call from several threads."""

    def __init__(self, trie: Trie, catalogue: Catalogue) -> None:
        self._trie, self._catalogue = trie, catalogue
        self._lock = threading.Lock()
        self._next = 1
        self._ids: dict[str, int] = {}
        self._masks: OrderedDict[int, tuple[str, Mask]] = OrderedDict()
        self._everything = self._mask(np.ones(trie.n_items, np.bool_))

    def id(self, filters: Filters) -> int:
        """The id of a filter; its mask is computed at its first use. Raises ValueError for an unknown field."""
        key = repr(sorted((name, sorted(set(values))) for name, values in filters.items()))
        with self._lock:
            if key in self._ids:
                return self._ids[key]
        allowed = self._catalogue.allowed(filters)
        if allowed is None:
            return EVERYTHING
        mask = self._mask(allowed)
        with self._lock:
            number = self._ids.setdefault(key, self._next)
            if number == self._next:
                self._next += 1
                self._masks[number] = (key, mask)
            if len(self._masks) > _KEPT:
                _, (evicted, _) = self._masks.popitem(last=False)
                del self._ids[evicted]
        return number

    def mask(self, number: int) -> Mask:
        """Raises KeyError for an id that was never given out, or is long unused."""
        if number == EVERYTHING:
            return self._everything
        with self._lock:
            self._masks.move_to_end(number)
            return self._masks[number][1]

    def _mask(self, allowed: npt.NDArray[np.bool_]) -> Mask:
        counts = self._trie.node_counts(allowed)
        return Mask(counts, [(count > 0).astype(np.uint8) for count in counts])
