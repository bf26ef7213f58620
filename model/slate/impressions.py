"""Drawn lists as arrays: what was shown where, what else might have been there, and what was clicked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from service.artifact.array_types import BoolArray, Float64Array, IntArray


@dataclass(frozen=True, slots=True, eq=False)
class Impressions:
    """L drawn lists of up to K positions.

    Attributes:
        subject: [L] number of the subject.
        item: [L, K] catalogue indices; −1 where a list is shorter.
        score: [L, K] scores of the items.
        clicked: [L, K] whether the item was clicked.
        dwell: [L, K] dwell of the item's view; 0 where nothing is known.
        chance: [L, K, K] P(the item shown at the first position is at the second), under the law of the draw.
    """

    subject: IntArray
    item: IntArray
    score: Float64Array
    clicked: BoolArray
    dwell: Float64Array
    chance: Float64Array

    @property
    def positions(self) -> int:
        """Length of the longest list."""
        return int(self.item.shape[1])

    @property
    def shown(self) -> BoolArray:
        """[L, K] whether a list has the position."""
        return self.item >= 0

    def of(self, which: BoolArray | IntArray) -> Impressions:
        """Returns some of the lists."""
        return Impressions(
            self.subject[which], self.item[which], self.score[which], self.clicked[which], self.dwell[which],
            self.chance[which],
        )  # fmt: skip


def alike_above(group: IntArray, nearness: Float64Array) -> Float64Array:
    """Returns [L, K] Σ 1 ÷ distance over the items above each position that are of its group.

    Args:
        group: [L, K] groups; negative for none.
        nearness: [K, K] 1 ÷ distance (`service.ordering.expected_reward.nearness`).
    """
    same = (group[:, :, None] == group[:, None, :]) & (group[:, :, None] >= 0)
    return np.asarray((same * nearness).sum(axis=2))


def follows_above(group: IntArray, follows: Float64Array) -> Float64Array:
    """Returns [L, K] what the prior says of each group below the one right above; 0 at the first position.

    Args:
        group: [L, K] groups; negative for none.
        follows: [groups, groups] the prior; empty for none.
    """
    found = np.zeros(group.shape)
    if len(follows):
        above, below = group[:, :-1], group[:, 1:]
        found[:, 1:] = np.where((above >= 0) & (below >= 0), follows[above, below], 0.0)
    return found
