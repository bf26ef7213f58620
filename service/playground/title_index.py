"""Search for items by title: one string of all titles, most popular first, scanned line by line."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate

from service.common.words import fold

# Matching lines examined for one query. They are sorted by popularity, so the rest would rarely be shown.
SCANNED_MAX = 4_000
# Characters that are searched at a time: a search holds the interpreter's lock, which answers to others need too.
BLOCK = 1 << 18


class TitleIndex:
    """Finds items by the words of their titles. Immutable, so safe to use from several threads."""

    def __init__(self, items: Sequence[int], titles: Iterable[str]) -> None:
        """Builds the index; reads every title once.

        Args:
            items: [n] Catalogue indices, the most popular first.
            titles: [n] Title of each item.

        Raises:
            ValueError: The numbers of items and titles differ.
        """
        self._items = list(items)
        lines = [fold(title) for title in titles]
        self._text = "\n".join(lines) + "\n"
        self._starts = [0, *accumulate(len(line) + 1 for line in lines)]
        if len(lines) != len(self._items):
            raise ValueError(f"{len(lines)} titles for {len(self._items)} items")

    def find(self, query: str, limit: int) -> list[int]:
        """Finds items whose title contains every word of the query, also inside other words.

        Returns:
            At most `limit` catalogue indices: matches at the start of words first, then titles that begin with the
            query, then by popularity. For a query without words, the most popular items.
        """
        folded = fold(query)
        words = folded.split()
        if not words:
            return self._items[:limit]
        matches = []
        for place in self._lines_with(max(words, key=len)):
            line = self._text[self._starts[place] : self._starts[place + 1] - 1]
            if all(word in line for word in words):
                inside = sum(f" {word}" not in line for word in words)
                matches.append((inside, not line.startswith(folded), place))
        return [self._items[place] for _, _, place in sorted(matches)[:limit]]

    def _lines_with(self, needle: str) -> Iterable[int]:
        begin, seen = 0, 0
        while begin < len(self._text) and seen < SCANNED_MAX:
            # A needle that begins in the block may end behind it.
            position = self._text.find(needle, begin, begin + BLOCK + len(needle) - 1)
            if position < 0:
                begin += BLOCK
                time.sleep(0)  # lets go of the lock
                continue
            place = bisect_right(self._starts, position) - 1
            yield place
            seen += 1
            begin = self._starts[place + 1]
