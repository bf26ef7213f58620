"""What an order of a list is expected to earn: look × click × value, position by position.

    there_1 = 1
    c_p     = there_p · e_p · σ(b_i + w_alike · alike + w_follows · follows)      i: the item at position p
    there_p+1 = there_p − leave · c_p                                             a click may end the visit
    reward  = Σ_p c_p · value_i

With leave = 0 and nothing of what stands above, this is the position-based model (Craswell, Zoeter, Taylor and Ramsey,
WSDM 2008); with leave, the dependent click model in expectation (Guo, Liu and Wang, WSDM 2009). `alike` is the sum of
1 ÷ distance over the items above of the same group, `follows` what the prior on orders says of the item's group below
the group of the item right above.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from service.artifact.array_types import BoolArray, Float64Array, IntArray
from service.artifact.scorers.order_weights import NO_GROUP, OrderWeights


@dataclass(frozen=True, slots=True, eq=False)
class Slate:
    """The m items of a list whose order is sought.

    Attributes:
        base: [m] log-odds of a click given a look, without what stands above.
        value: [m] value of a click.
        group: [m] group of each item; a number of its own, below 0, for an item of none.
        follows: [m, m] what the prior says of an item (column) right below another (row).
    """

    base: Float64Array
    value: Float64Array
    group: IntArray
    follows: Float64Array

    @classmethod
    def of(cls, weights: OrderWeights, items: IntArray, scores: Float64Array) -> Slate:
        """Looks up what is known of items.

        Args:
            weights: The order model.
            items: [m] exported items; `n_items` and above for an item that it does not know.
            scores: [m] their scores.
        """
        known = items < weights.n_items
        place = np.where(known, items, 0)
        of_item = np.where(known, weights.item[place], 0.0)
        value = np.where(known, weights.value[place], float(weights.value.mean()) if weights.n_items else 1.0)
        group = np.where(known, weights.group[place], NO_GROUP)
        mean, spread = weights.scale
        w = weights.weights
        base = w["base"] + w["score"] * (np.asarray(scores, np.float64) - mean) / spread + w["item"] * of_item
        grouped: BoolArray = group != NO_GROUP
        follows = np.zeros((len(items), len(items)))
        if len(weights.follows):
            follows = np.where(grouped[:, None] & grouped, weights.follows[group[:, None], group], 0.0)
        alone = np.where(grouped, group, -1 - np.arange(len(items)))
        return cls(base, value, np.asarray(alone, np.int64), np.asarray(follows, np.float64))


@cache
def nearness(m: int) -> Float64Array:
    """Returns [m, m] 1 ÷ distance of each position (row) from those above it; 0 elsewhere."""
    distance = np.arange(m)[:, None] - np.arange(m)
    return np.where(distance > 0, 1.0 / np.maximum(distance, 1), 0.0)


def log_odds(weights: OrderWeights, slate: Slate, orders: IntArray) -> Float64Array:
    """Returns [n, m] the log-odds of a click given a look at each position.

    Args:
        weights: The order model.
        slate: The items.
        orders: [n, m] places of the items, from the top.
    """
    w = weights.weights
    found = slate.base[orders]
    if w["alike"]:
        group = slate.group[orders]
        same = group[:, :, None] == group[:, None, :]
        found = found + w["alike"] * (same * nearness(orders.shape[1])).sum(axis=2)
    if w["follows"]:
        found[:, 1:] += w["follows"] * slate.follows[orders[:, :-1], orders[:, 1:]]
    return np.asarray(found)


def click_probabilities(weights: OrderWeights, slate: Slate, orders: IntArray) -> Float64Array:
    """Returns [n, m] the probability of a click at each position; arguments as of `log_odds`."""
    attracted = 1.0 / (1.0 + np.exp(-log_odds(weights, slate, orders)))
    m = orders.shape[1]
    looked = examination(weights, m) * attracted
    if not weights.leave:
        return np.asarray(looked)
    # there_p+1 = there_p (1 − leave · e_p σ), so it is a product.
    looked[:, 1:] *= np.cumprod(1.0 - weights.leave * looked[:, :-1], axis=1)
    return np.asarray(looked)


def expected_rewards(weights: OrderWeights, slate: Slate, orders: IntArray) -> Float64Array:
    """Returns [n] what each order is expected to earn; arguments as of `log_odds`."""
    return np.asarray((click_probabilities(weights, slate, orders) * slate.value[orders]).sum(axis=1))


def examination(weights: OrderWeights, m: int) -> Float64Array:
    """Returns [m] the probability of a look at each position; positions behind the last known one are like that."""
    e = weights.examination
    return e[np.minimum(np.arange(m), len(e) - 1)]
