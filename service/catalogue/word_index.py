"""The words of many titles, and the items that have each: what search and placing by text look things up in.

Arrays, so that a million titles take a few bytes a word. It is built once for an export; what came later is few enough
for dictionaries (`service.catalogue.search`).
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt

from service.artifact.array_types import FloatArray, IntArray
from service.common.words import words_of

WORDS_MAX = 64
# Titles after which the interpreter's lock is let go: answers need it too.
_TURN = 2000
# Postings that one look-up by text reads, the rarest words first.
_POSTINGS_MAX = 200_000


class WordIndex:
    """Words of titles. Immutable, so safe to use from several threads.

    Attributes:
        place: Number of each word.
        start: [V + 1] bounds of each word's items in `item`.
        item: [nnz] int32 items, ascending for each word.
        n: Number of titles.
    """

    def __init__(self, place: dict[str, int], start: IntArray, item: npt.NDArray[np.int32], n: int) -> None:
        self.place, self.start, self.item, self.n = place, start, item, n

    @classmethod
    def of(cls, titles: Iterable[str | None]) -> Self:
        """Reads every title once, in the order of the items; None for an item without."""
        place: dict[str, int] = defaultdict(lambda: len(place))
        words: list[npt.NDArray[np.int32]] = []
        counts: list[int] = []
        codes: list[int] = []
        for title in titles:
            own = [place[word] for word in words_of(title, WORDS_MAX)] if title else ()
            codes += own
            counts.append(len(own))
            if len(counts) % _TURN == 0:
                words.append(np.array(codes, np.int32))
                codes = []
                time.sleep(0)  # lets go of the lock
        code = np.concatenate([*words, np.array(codes, np.int32)])
        item = np.repeat(np.arange(len(counts), dtype=np.int32), counts)[np.argsort(code, kind="stable")]
        start = np.concatenate([[0], np.cumsum(np.bincount(code, minlength=len(place)))]).astype(np.int64)
        return cls(dict(place), start, item, len(counts))

    def items(self, word: int) -> npt.NDArray[np.int32]:
        """Returns the items that have a word, by its number."""
        return self.item[self.start[word] : self.start[word + 1]]

    @cached_property
    def rarity(self) -> FloatArray:
        """[V] float32, log(1 + titles ÷ titles with the word)."""
        return np.log1p(self.n / np.maximum(np.diff(self.start), 1)).astype(np.float32)

    @cached_property
    def _length(self) -> FloatArray:
        """[n] float32 length of each title as a vector of rarities."""
        word = np.repeat(np.arange(len(self.rarity)), np.diff(self.start))
        squares = np.bincount(self.item, weights=self.rarity[word] ** 2, minlength=self.n)
        length: FloatArray = np.sqrt(squares).astype(np.float32)
        return length

    def nearest(self, text: str, k: int, least: float) -> tuple[IntArray, FloatArray]:
        """Finds the titles that are most like a text: the cosine of vectors of rarities (tf-idf without counts).

        Args:
            text: The text.
            k: Number of titles.
            least: Least cosine.

        Returns:
            Items [m ≤ k], the nearest first, and their cosines.
        """
        known = [self.place[word] for word in words_of(text, WORDS_MAX) if word in self.place]
        found: list[IntArray] = []
        weights: list[FloatArray] = []
        left = _POSTINGS_MAX
        for word in sorted(known, key=lambda word: int(self.start[word + 1] - self.start[word])):
            items = self.items(word)
            if len(items) > left:
                break
            left -= len(items)
            found.append(items.astype(np.int64))
            weights.append(np.full(len(items), self.rarity[word] ** 2, np.float32))
        if not found:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        items, owner = np.unique(np.concatenate(found), return_inverse=True)
        length = float(np.sqrt((self.rarity[known] ** 2).sum()))
        cosine = (np.bincount(owner, weights=np.concatenate(weights)) / (length * self._length[items])).astype(
            np.float32
        )
        best = np.argsort(-cosine, kind="stable")[:k]
        best = best[cosine[best] >= least]
        return items[best].astype(np.int64), cosine[best]
