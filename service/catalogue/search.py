"""Finds items by the words of their titles: beginnings and typos count, and so do titles that were stored a moment ago.

The titles of the export are indexed once (`service.catalogue.word_index`), when somebody first searches. What came
later is kept beside them, and follows the stored items one by one.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from service.artifact.array_types import IntArray
from service.artifact.scorers.popularity import Popularity
from service.catalogue.live_items import LiveItems
from service.catalogue.near_words import NearWords
from service.catalogue.word_index import WORDS_MAX, WordIndex
from service.common.errors import Overloaded
from service.common.words import words_of
from service.engine.interface import CatalogueView
from service.process.low_priority import low_priority_thread

QUERY_WORDS_MAX = 8
_WAITING_MAX = 32
# Words of titles that are gone, beside as many as there are, that are kept.
_OLD_WORDS_MAX = 10_000
# Items that are looked at for one word of a query; those of words that are nearer to it come first.
_MATCHES_MAX = 100_000


class Searched(Protocol):
    """The part of `service.lifecycle.served_model.ServedModel` that search needs."""

    @property
    def version(self) -> str:
        """The model version."""
        ...

    @property
    def catalogue(self) -> CatalogueView:
        """The items."""
        ...

    @property
    def popularity(self) -> Popularity:
        """The items by popularity."""
        ...


@dataclass(slots=True)
class _Exported:
    """The titles of a catalogue when it was indexed.

    Attributes:
        version: Of its model.
        words: Its words.
        near: What they may be mistaken for.
        rank: [n] place of each item by popularity; items that have none come last.
    """

    version: str
    words: WordIndex
    near: NearWords
    rank: IntArray


@dataclass(slots=True)
class _Late:
    """Titles that came later, by id of their item."""

    words: dict[str, list[str]] = field(default_factory=dict)
    ids: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    near: NearWords = field(default_factory=NearWords)

    def put(self, item_id: str, title: str | None) -> None:
        """Takes over a title; None takes the item away."""
        if len(self.near) > 2 * len(self.ids) + _OLD_WORDS_MAX:
            self.near = NearWords()  # most of its words are in no title any more
            self.near.add(self.ids)
        for word in self.words.pop(item_id, ()):
            self.ids[word].discard(item_id)
            if not self.ids[word]:
                del self.ids[word]
        if title:
            self.words[item_id] = words = words_of(title, WORDS_MAX)
            self.near.add(words)
            for word in words:
                self.ids[word].add(item_id)

    def find(self, query: Sequence[str]) -> dict[str, tuple[int, int]]:
        """Returns how many words of a query each item has, and what they differ by."""
        found: dict[str, tuple[int, int]] = {}
        for place, word in enumerate(query):
            best: dict[str, int] = {}
            for other, kind in self.near.near(word, begun=place == len(query) - 1).items():
                for item_id in self.ids.get(other, ()):
                    best[item_id] = min(kind, best.get(item_id, kind))
            for item_id, kind in best.items():
                count, differs = found.get(item_id, (0, 0))
                found[item_id] = count + 1, differs + kind
        return found


class ItemSearch:
    """Finds items. Its state is used on one thread of its own, of low priority."""

    def __init__(self, live: LiveItems) -> None:
        """Follows the stored items."""
        self._live = live
        self._pending: set[str] = set(live.records)
        self._thread = low_priority_thread("item-search")
        self._waiting = 0
        self._exported: _Exported | None = None
        self._late = _Late()
        self._covered = 0
        self._unsubscribe = live.subscribe(self._changed)

    def close(self) -> None:
        """Stops following, and ends the thread."""
        self._unsubscribe()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def find(self, query: str, served: Searched, limit: int) -> list[str]:
        """Returns the ids of the items whose titles have the words of the query, the best first.

        A word counts if it is in the title, if it is the last one and begins a word there, or if no title of its source
        has it and it differs by a typo. Items that have most words come first, then those that have them exactly, then
        the popular ones.

        Args:
            query: The query; its first `QUERY_WORDS_MAX` words count.
            served: The model in service.
            limit: Most items.

        Raises:
            Overloaded: Too many searches wait.
        """
        if self._waiting >= _WAITING_MAX:
            raise Overloaded("too many searches are waiting; try again in a moment")
        pending, self._pending = self._pending, set()
        titles = {item_id: self._title(item_id) for item_id in pending}
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, self._find, query, served, titles, limit)
        finally:
            self._waiting -= 1

    def _changed(self, ids: Collection[str]) -> None:
        self._pending.update(ids)

    def _title(self, item_id: str) -> str | None:
        record = self._live.records.get(item_id)
        return None if record is None else record.fields.get("title")

    def _find(self, query: str, served: Searched, titles: Mapping[str, str | None], limit: int) -> list[str]:
        for item_id, title in titles.items():
            self._late.put(item_id, title)
        exported = self._index(served)
        self._cover(served.catalogue)
        words = words_of(query, QUERY_WORDS_MAX)
        if not words:
            return []
        ids = served.catalogue.item_ids
        late = self._late.find(words)
        ranked = [(-count, differs, len(exported.rank), item_id) for item_id, (count, differs) in late.items()]
        for item, count, differs in _matches(exported, words, limit + len(late)):
            item_id = ids[item]
            if item_id and item_id not in self._late.words:
                ranked.append((-count, differs, int(exported.rank[item]), item_id))
        ranked.sort()
        most = ranked[0][0] if ranked else 0
        return [item_id for count, _, _, item_id in ranked if count == most][:limit]

    def _index(self, served: Searched) -> _Exported:
        """The index of the served model's titles; made when the model is another."""
        if self._exported is None or self._exported.version != served.version:
            catalogue, order = served.catalogue, served.popularity.order
            n = len(catalogue.item_ids)
            words = WordIndex.of(catalogue.title(item) for item in range(n))
            near = NearWords()
            near.add(words.place)
            rank = np.full(n, n, np.int64)
            rank[order] = np.arange(len(order))
            self._exported, self._covered = _Exported(served.version, words, near, rank), n
        return self._exported

    def _cover(self, catalogue: CatalogueView) -> None:
        """Takes over items that came after the index was made, and not over HTTP."""
        ids = catalogue.item_ids
        for item in range(self._covered, len(ids)):
            if ids[item] not in self._late.words:
                self._late.put(ids[item], catalogue.title(item))
        self._covered = max(self._covered, len(ids))


def _matches(exported: _Exported, query: Sequence[str], limit: int) -> Iterable[tuple[int, int, int]]:
    """Yields (item, words of the query that it has, what they differ by) of the best items."""
    items: list[IntArray] = []
    kinds: list[IntArray] = []
    for place, word in enumerate(query):
        near = exported.near.near(word, begun=place == len(query) - 1)
        found, kind = _with_any(exported.words, near)
        items.append(found)
        kinds.append(kind)
    unique, owner = np.unique(np.concatenate(items), return_inverse=True)
    if not len(unique):
        return
    count = np.bincount(owner)
    differs = np.bincount(owner, weights=np.concatenate(kinds)).astype(np.int64)
    order = np.lexsort((exported.rank[unique], differs, -count))[:limit]
    yield from zip(unique[order].tolist(), count[order].tolist(), differs[order].tolist(), strict=True)


def _with_any(words: WordIndex, near: Mapping[str, int]) -> tuple[IntArray, IntArray]:
    """Returns the items that have one of the words, and the least that one of them differs by."""
    found, kinds, left = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], _MATCHES_MAX
    for word, kind in sorted(near.items(), key=lambda pair: pair[1]):
        items = words.items(words.place[word])[:left].astype(np.int64)
        found.append(items)
        kinds.append(np.full(len(items), kind, np.int64))
        left -= len(items)
    items, first = np.unique(np.concatenate(found), return_index=True)  # the first of equals: the nearest word's
    return items, np.concatenate(kinds)[first]
