"""The inputs of a decoder run that carry the signals of its users.

The signals of a limited number of items count for a list. They are the largest of those that the request's filter
allows and that are not excluded, so the limit never hides what a filter leaves. All this is done with few calls over a
few thousand numbers, and kept for a user who asks again without a new event.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from service.artifact.array_types import Array, IntArray
from service.artifact.graphs import graph_names as names
from service.artifact.items.item_filters import drop_excluded
from service.artifact.trie import Trie
from service.engine.decode.bounded_cache import BoundedCache
from service.engine.decode.filters import Mask
from service.engine.decoding import signals_max
from service.engine.jobs import ListRequest
from service.signals.item_values import NO_VALUES, ItemValues, PackedValues

# Of more signals than `_MANY` times what is taken, the largest `_FIRST` times are looked at first.
_MANY, _FIRST = 4, 2
_KEPT_MAX = 1024
_KEPT_BYTES_MAX = 16 * 2**20


class ListableSignals:
    """The signals that can matter to lists over one catalogue and stock. Safe for several threads.

    Those of profiles are kept, for filter and exclusions: the same object stands for the same values.
    """

    def __init__(self, trie: Trie, *, dense: bool) -> None:
        """`dense`: whether the graphs score the whole catalogue."""
        self._trie, self._most = trie, signals_max(dense=dense)
        self._kept: BoundedCache[tuple[PackedValues, int, bytes], ItemValues]
        self._kept = BoundedCache(_KEPT_MAX, _KEPT_BYTES_MAX)

    def of(self, request: ListRequest, mask: Mask) -> ItemValues:
        """Returns those of a request, for the mask of its filter; they must not be changed."""
        signals = request.signals

        def compute() -> ItemValues:
            return listable(signals.unpacked(), self._trie, mask, request.excluded, self._most)

        if not isinstance(signals, PackedValues):
            return compute()
        key = signals, mask.id, request.excluded.tobytes()
        # The key keeps the packed values alive.
        size = signals.nbytes + len(key[2])
        return self._kept.get(key, compute, lambda kept: size + kept.items.nbytes + kept.values.nbytes)


def listable(signals: ItemValues, trie: Trie, mask: Mask, excluded: IntArray, most: int) -> ItemValues:
    """Returns the signals that can matter to a list: of items that it may hold, at most `most`, the largest.

    The sign does not count: what moves an item down matters as much as what moves one up.

    Args:
        signals: What the user's signals add to the score of each item.
        trie: The catalogue's trie; items without a leaf are left out.
        mask: The request's filter.
        excluded: [m] items to leave out, in any order.
        most: The largest number of items.
    """
    known = int(signals.items.searchsorted(len(trie.item_leaf)))
    everything = ItemValues(signals.items[:known], signals.values[:known])
    if known > _MANY * most:
        # The largest suffice unless a filter leaves little of them, and each item looked up is a miss of the cache.
        kept = _listable(_largest(everything, _FIRST * most), trie, mask, excluded)
        if len(kept) >= most:
            return _largest(kept, most)
    return _largest(_listable(everything, trie, mask, excluded), most)


def _largest(signals: ItemValues, most: int) -> ItemValues:
    if len(signals) <= most:
        return signals
    chosen = np.sort(np.abs(signals.values).argpartition(len(signals) - most)[-most:])
    return ItemValues(signals.items.take(chosen), signals.values.take(chosen))


def _listable(signals: ItemValues, trie: Trie, mask: Mask, excluded: IntArray) -> ItemValues:
    items, values = signals.items, signals.values
    if not len(items):
        return NO_VALUES
    if len(mask.item_ok):
        ok = mask.item_ok.take(items)
    else:
        leaf = trie.item_leaf.take(items)
        ok = (leaf >= 0) & (mask.counts[-1].take(leaf, mode="clip") > 0)
    ok &= values != 0
    drop_excluded(ok, items, excluded)
    return signals if ok.all() else ItemValues(items[ok], values[ok])


def signal_feeds(signals: Sequence[ItemValues], rows: int, size: int) -> dict[str, Array]:
    """Returns the graph's inputs [rows, size] for the signals of each request."""
    if rows == 1 and len(signals[0]) == size:
        return {names.SIGNAL_ITEM: signals[0].items[None], names.SIGNAL_VALUE: signals[0].values[None]}
    item, value = np.zeros((rows, size), np.int64), np.zeros((rows, size), np.float32)
    for row, one in enumerate(signals):
        item[row, : len(one)] = one.items
        value[row, : len(one)] = one.values
    return {names.SIGNAL_ITEM: item, names.SIGNAL_VALUE: value}
