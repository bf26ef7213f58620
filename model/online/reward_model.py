"""A simple model of what an item earns at a position, for the doubly robust estimate.

    r(item, position) = a(position, bin of the item's probability) · b(item)

a are means of the log, b is the item's reward over what a expects of it; both are drawn towards the mean where little
was seen. The estimate is unbiased whatever the model says; a better one makes its interval narrower. Each list is
predicted by a model that was learned on other subjects (cross-fitting: Chernozhukov et al., Econometrics Journal 2018).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from service.artifact.array_types import Float64Array, IntArray

FOLDS = 5
# Bins of the log-probability of an item as the first of the list, at temperature 1.
BIN_EDGES = np.array([-9.0, -7.0, -5.5, -4.0, -3.0, -2.0, -1.0])
# Showings, and rewarded showings, that the mean counts for.
_SHOWN_PRIOR, _EARNED_PRIOR = 20.0, 2.0


def bins(log_probability: Float64Array) -> IntArray:
    """Returns the bins of log-probabilities, of any shape."""
    return np.asarray(np.searchsorted(BIN_EDGES, log_probability), np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class RewardModel:
    """What was learned.

    Attributes:
        by_position: [K, bins] a.
        by_item: [items + 1] b; the last is that of items that were never shown.
    """

    by_position: Float64Array
    by_item: Float64Array

    def predict(self, item: IntArray, log_probability: Float64Array, positions: int) -> Float64Array:
        """Returns r [n, positions] of n items.

        Args:
            item: [n] numbers of the items; −1 if never shown.
            log_probability: [n] log-probability of each as the first.
            positions: Number of positions.
        """
        a = self.by_position[:positions, bins(log_probability)].T
        return np.asarray(a * self.by_item[item][:, None])


def fit(
    item: IntArray, position: IntArray, log_probability: Float64Array, reward: Float64Array, items: int, positions: int
) -> RewardModel:
    """Learns the model from n shown items.

    Args:
        item: [n] numbers of the items, below `items`.
        position: [n] positions from 0.
        log_probability: [n] log-probability of each as the first.
        reward: [n] what each earned.
        items: Number of items.
        positions: Longest list.
    """
    n_bins = len(BIN_EDGES) + 1
    overall = float(reward.mean()) if len(reward) else 0.0
    shown = np.bincount(position, minlength=positions)
    earned = np.bincount(position, reward, minlength=positions)
    of_position = (earned + _SHOWN_PRIOR * overall) / (shown + _SHOWN_PRIOR)
    cell = position * n_bins + bins(log_probability)
    shown = np.bincount(cell, minlength=positions * n_bins).reshape(positions, n_bins)
    earned = np.bincount(cell, reward, minlength=positions * n_bins).reshape(positions, n_bins)
    a = (earned + _SHOWN_PRIOR * of_position[:, None]) / (shown + _SHOWN_PRIOR)
    rewarded = reward[reward > 0]
    prior = _EARNED_PRIOR * (float(rewarded.mean()) if len(rewarded) else 1.0)
    expected = np.bincount(item, a.ravel()[cell], minlength=items)
    b = (np.bincount(item, reward, minlength=items) + prior) / (expected + prior)
    return RewardModel(a, np.append(b, 1.0))


def fit_folds(
    fold: IntArray,
    item: IntArray,
    position: IntArray,
    log_probability: Float64Array,
    reward: Float64Array,
    items: int,
    positions: int,
) -> Sequence[RewardModel]:
    """Returns for each fold a model that was learned on the others; the arguments are those of `fit`.

    Args:
        fold: [n] fold of each shown item, below `FOLDS`; all items of a subject are in one.
        item: See `fit`.
        position: See `fit`.
        log_probability: See `fit`.
        reward: See `fit`.
        items: See `fit`.
        positions: See `fit`.
    """
    return [
        fit(item[other], position[other], log_probability[other], reward[other], items, positions)
        for other in (fold != number for number in range(FOLDS))
    ]
