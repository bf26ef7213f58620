"""The inputs of a decoder run that carry the signals of its users.

The signals of a limited number of items count for a list. They are the largest of those that the request's filter
allows and that are not excluded, so the limit never hides what a filter leaves. All this is done before every
run, with few calls over a few thousand numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from service.artifact import graph_names as names
from service.artifact.array_types import Array, IntArray
from service.artifact.item_filters import drop_excluded
from service.artifact.trie import Trie
from service.engine.decode.filters import Mask
from service.signals.item_values import NO_VALUES, ItemValues

# Of more signals than `_MANY` times what is taken, the largest `_FIRST` times are looked at first.
_MANY, _FIRST = 4, 2


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
    leaf = trie.item_leaf.take(items)
    ok = (leaf >= 0) & (values != 0) & (mask.counts[-1].take(leaf, mode="clip") > 0)
    drop_excluded(ok, items, excluded)
    return signals if ok.all() else ItemValues(items[ok], values[ok])


def signal_feeds(signals: Sequence[ItemValues], rows: int, size: int) -> dict[str, Array]:
    """Returns the graph's inputs [rows, size] for the signals of each request."""
    item, value = np.zeros((rows, size), np.int64), np.zeros((rows, size), np.float32)
    for row, one in enumerate(signals):
        item[row, : len(one)] = one.items
        value[row, : len(one)] = one.values
    return {names.SIGNAL_ITEM: item, names.SIGNAL_VALUE: value}
