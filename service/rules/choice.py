"""What a list is chosen from, what boosts make of its scores, and what is left of it for a draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from service.artifact.array_types import BoolArray, Float64Array, FloatArray, IntArray
from service.rules.compiled import CompiledRule
from service.rules.items import Items
from service.rules.problem import Limit
from service.rules.ruling import Ruling
from service.rules.selection import Selection
from service.rules.spec import Boost


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """What a list is chosen from.

    Attributes:
        items: [n] catalogue indices.
        scores: [n] float32 their scores; added items have the least.
        boosted: [n] float32 the same with all boosts.
        keys: [n] float64 what ranks them: the boosted scores, or what a draw makes of them.
        stage: [n] 0 and 1 for what was ranked, of a drawn list inside and outside of its nucleus; 2 for added items.
    """

    items: IntArray
    scores: FloatArray
    boosted: FloatArray
    keys: Float64Array
    stage: IntArray

    def take(self, places: IntArray | BoolArray) -> Pool:
        """Returns some of the pool."""
        return Pool(*(array[places] for array in self._arrays()))

    def with_more(self, other: Pool) -> Pool:
        """Returns the pool with another one behind it."""
        if not len(other.items):
            return self
        return Pool(*(np.concatenate(both) for both in zip(self._arrays(), other._arrays(), strict=True)))

    def _arrays(self) -> tuple[Any, ...]:
        return self.items, self.scores, self.boosted, self.keys, self.stage


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """A list, as places in a pool.

    Attributes:
        pool: What it was chosen from.
        rules: The rules over the pool.
        selection: The list.
    """

    pool: Pool
    rules: Sequence[CompiledRule]
    selection: Selection


def boosted(ruling: Ruling, items: Items, candidates: IntArray, scores: FloatArray, *, plain: bool) -> FloatArray:
    """Returns the scores with all boosts; the same array if there are none.

    Args:
        ruling: The rules.
        items: What is known of items.
        candidates: [n] catalogue indices.
        scores: [n] their scores.
        plain: Whether scores are in proportion to how likely an item is; else they are logarithms of that.
    """
    if not any(isinstance(active.rule, Boost) for active in ruling.rules):
        return scores
    raised = np.array([mark.raised for mark in items.marks(ruling, candidates.tolist())], np.float32)
    if not raised.any():
        return scores
    found: FloatArray = scores * np.exp(raised) if plain else scores + raised
    return found


def what_is_left(rules: Sequence[CompiledRule], scores: FloatArray) -> tuple[IntArray, dict[int, int]]:
    """Finds candidates of which any list keeps all rules: of each set the best, as many as the list may have.

    Args:
        rules: Rules that only shrink (`Ruling.shrinks`).
        scores: [n] scores with boosts.

    Returns:
        Their places, ascending, and the mask of the rules that left out each of the others.
    """
    of_place: dict[int, list[Limit]] = {}
    for rule in rules:
        for limit in rule.limits:
            for place in limit.members:
                of_place.setdefault(place, []).append(limit)
    groups = [rule.groups for rule in rules if rule.groups is not None]
    count: dict[int, int] = {}
    taken: dict[int, int] = {}
    left: list[int] = []
    left_out: dict[int, int] = {}
    for place in np.argsort(-scores, kind="stable").tolist():
        limits = of_place.get(place, ())
        own = {one.bit: one.of_place[place] for one in groups if place in one.of_place}
        mask = sum({limit.bit for limit in limits if count.get(id(limit), 0) >= limit.high})
        mask |= sum(bit for bit, group in own.items() if taken.get(bit, group) != group)
        if mask:
            left_out[place] = mask
            continue
        left.append(place)
        taken |= own
        for limit in limits:
            count[id(limit)] = count.get(id(limit), 0) + 1
    return np.sort(np.array(left, np.int64)), left_out
