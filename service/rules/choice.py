"""What a list is chosen from, what boosts make of its scores, and what is left of it for a draw."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from service.artifact.array_types import FloatArray, IntArray
from service.rules.compiled import CompiledRule
from service.rules.problem import Limit
from service.rules.selection import Selection
from service.rules.spec import Boost


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """What a list is chosen from.

    Attributes:
        items: [n] catalogue indices.
        scores: [n] float32 their scores; added items have the least.
        ranked: So many of them were ranked, the others are added.
    """

    items: IntArray
    scores: FloatArray
    ranked: int

    def with_more(self, items: IntArray) -> Pool:
        """Returns the pool with other items."""
        if not len(items):
            return self
        least = min(0.0, float(self.scores.min(initial=0.0)))
        scores = np.concatenate([self.scores, np.full(len(items), least, np.float32)])
        return Pool(np.concatenate([self.items, items]), scores, self.ranked)


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """A list, as places in a pool.

    Attributes:
        pool: What it was chosen from.
        rules: The rules over the pool.
        scores: [n] float32 scores with boosts.
        selection: The list.
    """

    pool: Pool
    rules: Sequence[CompiledRule]
    scores: FloatArray
    selection: Selection


def boosted(rules: Sequence[CompiledRule], pool: Pool, *, plain: bool) -> FloatArray:
    """Returns the scores with all boosts; the pool's own array if there are none.

    Args:
        rules: The rules over the pool.
        pool: The candidates.
        plain: Whether scores are in proportion to how likely an item is; else they are logarithms of that.
    """
    scores = pool.scores
    for one in rules:
        rule = one.active.rule
        if isinstance(rule, Boost) and one.members:
            scores = scores.copy() if scores is pool.scores else scores
            places = sorted(one.members)
            times = rule.times if rule.kind == "boost" else 1.0 / rule.times
            if plain:
                scores[places] *= np.float32(times)
            else:
                scores[places] += np.float32(math.log(times))
    return scores


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
