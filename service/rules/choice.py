"""What a list is chosen from, what boosts make of its scores, and what is left of it for a draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from service.artifact.array_types import FloatArray, IntArray
from service.rules.ruling import Ruling
from service.rules.selection import Candidates, Selection
from service.rules.terms import Mark, Tally, Terms


@dataclass(slots=True, eq=False)
class Pool:
    """What a list is chosen from.

    Attributes:
        items: [n] catalogue indices.
        scores: [n] their scores; added items have the least.
        boosted: [n] the same with all boosts.
        candidates: What ranks them: the boosted scores, or what a draw makes of them. Their stage is 0 and 1 for what
            was ranked, of a drawn list inside and outside of its nucleus, and 2 for added items.
    """

    items: list[int]
    scores: list[float]
    boosted: list[float]
    candidates: Candidates

    def take(self, places: Sequence[int]) -> Pool:
        """Returns candidates of the pool, in the order of their places here."""
        old = self.candidates
        candidates = Candidates(
            [old.keys[place] for place in places],
            [old.stage[place] for place in places],
            [old.marks[place] for place in places],
            list(range(len(places))),
        )
        boosted = [self.boosted[place] for place in places]
        return Pool(
            [self.items[place] for place in places], [self.scores[place] for place in places], boosted, candidates
        )

    def add(self, more: Pool) -> None:
        """Adds other candidates, behind these."""
        n, candidates, others = len(self.items), self.candidates, more.candidates
        self.items += more.items
        self.scores += more.scores
        self.boosted += more.boosted
        candidates.keys += others.keys
        candidates.stage += others.stage
        candidates.marks += others.marks
        candidates.take(range(n, len(self.items)))


@dataclass(slots=True, eq=False)
class Choice:
    """A list, as places in a pool.

    Attributes:
        pool: What it was chosen from.
        pins: Place of the candidate that each rule pins, by the number of the rule, if the item may be listed.
        selection: The list.
        moved: Whether boosts change which candidates are best, or their order.
    """

    pool: Pool
    pins: dict[int, int]
    selection: Selection
    moved: bool


def boosted(ruling: Ruling, marks: Sequence[Mark], scores: FloatArray, *, plain: bool) -> FloatArray:
    """Returns the scores with all boosts; the same array if there are none.

    Args:
        ruling: The rules.
        marks: [n] what the candidates are to them.
        scores: [n] their scores.
        plain: Whether scores are in proportion to how likely an item is; else they are logarithms of that.
    """
    if not ruling.boosts:
        return scores
    raised = [mark.raised for mark in marks]
    if not any(raised):
        return scores
    by = np.array(raised, np.float32)
    found: FloatArray = scores * np.exp(by) if plain else scores + by
    return found


def what_is_left(terms: Terms, marks: Sequence[Mark], scores: FloatArray) -> tuple[IntArray, dict[int, int]]:
    """Finds candidates of which any list keeps all rules: of each set the best, as many as the list may have.

    Args:
        terms: Rules that only shrink (`Ruling.shrinks`).
        marks: [n] what the candidates are to them.
        scores: [n] scores with boosts.

    Returns:
        Their places, ascending, and the mask of the rules that left out each of the others.
    """
    tally, left, left_out = Tally(terms), list[int](), dict[int, int]()
    for place in np.argsort(-scores, kind="stable").tolist():
        sets = marks[place].sets
        mask = tally.mask(sets)
        if mask:
            left_out[place] = mask
        else:
            left.append(place)
            tally.place(sets, 1)
    return np.array(sorted(left), np.int64), left_out
