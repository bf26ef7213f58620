"""What many candidates break, found for all of them at once.

Callers choose the rules of their requests, and a list whose rules cannot all be kept looks at every candidate for each
of its positions. There may be 1,500 of them, and no two alike to the rules.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from service.artifact.array_types import IntArray
from service.rules.shortage import Starved
from service.rules.terms import OF_RULE, Mark, Terms


class Scan:
    """The candidates of one choice, those that are alike to the rules together.

    Attributes:
        passed_over: [n] mask of the limits that kept each candidate from a position so far.
    """

    def __init__(self, terms: Terms, marks: Sequence[Mark]) -> None:
        """`marks` [n] are what the candidates are to the rules."""
        kinds: dict[int, int] = {}
        kind = [kinds.setdefault(id(mark), len(kinds)) for mark in marks]
        self._terms, self._kind = terms, np.array(kind, np.int64)
        self._first = np.unique(self._kind, return_index=True)[1].tolist()
        self._with: dict[int, list[int]] = {}
        for number, place in enumerate(self._first):
            for one in marks[place].sets:
                self._with.setdefault(one, []).append(number)
        self._mask = np.zeros(len(self._first), np.int64)
        self._full: set[int] = set()
        self.passed_over: IntArray = np.zeros(len(marks), np.int64)

    def best(self, queue: Sequence[int], full: Collection[int], starved: Starved | None) -> tuple[int, int]:
        """Returns where in the queue stands the first candidate that breaks least, and the mask of what it breaks.

        Args:
            queue: [m ≥ 1] places of candidates.
            full: The sets that have no place left.
            starved: What lower limits lose by each of them, if any does.
        """
        self._bar(set(full))
        masks = self._mask
        if starved is not None:
            masks = masks | np.array(starved.each(self._first), np.int64)
        places = np.array(queue, np.int64)
        found = masks[self._kind[places]]
        at = int(found.argmin())  # the first of the least
        seen = at if not found[at] else len(queue)
        self.passed_over[places[:seen]] |= found[:seen]
        return at, int(found[at])

    def _bar(self, full: set[int]) -> None:
        """Adds what is full now to the masks; makes them anew if something that was full is no longer counted."""
        if not self._full <= full:
            self._mask[:] = 0
            self._full = set()
        for number in full - self._full:
            self._mask[self._with.get(number, [])] |= self._terms.bit[number & OF_RULE]
        self._full = full
