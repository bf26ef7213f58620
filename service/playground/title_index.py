"""Items found by what they are called: one string of all titles, the most popular first, searched line by line."""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate

# Lines looked at for one question. They come by popularity, so what is beyond would not be shown either.
LOOKED_AT = 4_000


class TitleIndex:
    """Immutable; safe to use from several threads. Building it reads every title once."""

    def __init__(self, items: Sequence[int], titles: Iterable[str]) -> None:
        """`items` [n] by falling popularity, and what each is called."""
        self._items = list(items)
        lines = [fold(title) for title in titles]
        self._text = "\n".join(lines) + "\n"
        self._starts = [0, *accumulate(len(line) + 1 for line in lines)]
        if len(lines) != len(self._items):
            raise ValueError(f"{len(lines)} titles for {len(self._items)} items")

    def find(self, query: str, limit: int) -> list[int]:
        """Items that have every word of `query` in their title, whole beginnings first, then by popularity; the most
        popular ones where it has no word."""
        asked = fold(query)
        words = asked.split()
        if not words:
            return self._items[:limit]
        found = []
        for place in self._lines_with(max(words, key=len)):
            line = self._text[self._starts[place] : self._starts[place + 1] - 1]
            if all(word in line for word in words):
                inside = sum(f" {word}" not in line for word in words)
                found.append((inside, not line.startswith(asked), place))
        return [self._items[place] for _, _, place in sorted(found)[:limit]]

    def _lines_with(self, needle: str) -> Iterable[int]:
        at, seen = self._text.find(needle), 0
        while at >= 0 and seen < LOOKED_AT:
            place = bisect_right(self._starts, at) - 1
            yield place
            seen += 1
            at = self._text.find(needle, self._starts[place + 1])


def fold(text: str) -> str:
    """Lower case, without accents and punctuation, with a space before every word: ` schindlers list 1993`."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    kept = (
        "" if unicodedata.category(letter) == "Mn" or letter in "'’" else letter if letter.isalnum() else " "
        for letter in plain
    )
    return "".join(f" {word}" for word in "".join(kept).split())
