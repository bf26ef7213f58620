"""Puts the first items of a list into order: the seam between an order model and what lists items. Pure, numpy alone.

expected_reward   by the best of two beginnings (the order given; value × probability of a click), then exchanges of
                  two near items as long as one earns more. Where nothing depends on what stands above, that is the
                  best order: looks become fewer from position to position.
policy            position by position, the item that the policy prefers there
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np

from service.artifact.array_types import Float64Array, FloatArray, IntArray
from service.artifact.scorers.order_weights import OrderWeights
from service.ordering.expected_reward import Slate, expected_rewards, nearness

# Longest part of a list that is put into order.
FIRST_MAX = 20
# Passes, each of which makes the best exchange, and how far apart the two items are at most.
_PASSES, _REACH = 12, 3
_LEAST_GAIN = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class Ordering:
    """An order model in service.

    Attributes:
        weights: What was learned.
        first: How many items from the top are put into order.
        stand_in: For each item that came after the export, the exported item that it is most like.
    """

    weights: OrderWeights
    first: int
    stand_in: Mapping[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, weights: OrderWeights | None, first: int) -> Ordering | None:
        """Returns the ordering of an artefact; None where it has none, or where none is wanted.

        Args:
            weights: The order model; None where the artefact has none.
            first: How many items from the top are put into order; below 2 for none.
        """
        return None if weights is None or first < 2 else cls(weights, min(first, FIRST_MAX))

    def over(self, stand_in: Mapping[int, int]) -> Ordering:
        """Returns the same over a catalogue with new items, each with the exported item that it is most like."""
        return replace(self, stand_in=stand_in)

    def order(self, items: IntArray, scores: FloatArray) -> IntArray:
        """Returns [n] the places of a list's items in their new order; those behind the first ones stay.

        Args:
            items: [n] catalogue indices, best first.
            scores: [n] their scores.
        """
        m = min(self.first, len(items))
        places = np.arange(len(items))
        if m < 2:
            return places
        exported = items[:m]
        if self.stand_in:
            exported = np.array([self.stand_in.get(item, item) for item in exported.tolist()], np.int64)
        places[:m] = best_order(self.weights, Slate.of(self.weights, exported, np.asarray(scores[:m], np.float64)))
        return places


def best_order(weights: OrderWeights, slate: Slate) -> IntArray:
    """Returns [m] places of the items from the top, as the method of the order model says."""
    return _preferred(weights, slate) if weights.method == "policy" else _earning_most(weights, slate)


def _earning_most(weights: OrderWeights, slate: Slate) -> IntArray:
    m = len(slate.base)
    attracted = 1.0 / (1.0 + np.exp(-slate.base))
    beginnings = np.stack([np.arange(m), np.argsort(-attracted * slate.value, kind="stable")])
    earned = expected_rewards(weights, slate, beginnings)
    best = int(earned[1] > earned[0] + _LEAST_GAIN)
    order, reward = beginnings[best], float(earned[best])
    exchanges = _exchanges(m)
    for _ in range(_PASSES):
        others = order[exchanges]
        earned = expected_rewards(weights, slate, others)
        best = int(earned.argmax())
        if earned[best] <= reward + _LEAST_GAIN:
            break
        order, reward = others[best], float(earned[best])
    return np.asarray(order, np.int64)


@cache
def _exchanges(m: int) -> IntArray:
    """[exchanges, m] places, with two near ones exchanged in each row."""
    pairs = [(i, j) for i in range(m) for j in range(i + 1, min(m, i + 1 + _REACH))]
    rows = np.tile(np.arange(m), (len(pairs), 1))
    for row, (i, j) in zip(rows, pairs, strict=True):
        row[i], row[j] = j, i
    return rows


def _preferred(weights: OrderWeights, slate: Slate) -> IntArray:
    """The most probable item of the policy at each position, given those above it."""
    m, w = len(slate.base), weights.weights
    near, left = nearness(m), np.ones(m, bool)
    order: list[int] = []
    for position in range(m):
        preference: Float64Array = slate.base.copy()
        if order:
            preference += w["alike"] * (near[position, :position] @ (slate.group[order][:, None] == slate.group))
            preference += w["follows"] * slate.follows[order[-1]]
        place = int(np.where(left, preference, -np.inf).argmax())
        order.append(place)
        left[place] = False
    return np.array(order, np.int64)
