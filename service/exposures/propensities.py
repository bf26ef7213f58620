"""Probability that a draw without replacement gives a set, whatever its order.

Where the order of a list was changed after its draw, the probabilities of its positions say nothing of it any more;
that of the set still does. It is the sum over all orders of a Plackett–Luce draw (Plackett, 1975), which the recursion
over subsets gives in 2ᵏ steps instead of k!.
"""

from __future__ import annotations

import math

import numpy as np

from service.artifact.array_types import BoolArray, Float64Array, FloatArray, IntArray
from service.engine.decode.draws import first_log_probs, nucleus
from service.engine.decoding import Decoding

# 2ᵏ subsets: at twelve a few thousand.
SET_MAX = 12


def set_log_propensity(scores: FloatArray, decoding: Decoding, drawn: IntArray) -> float | None:
    """Returns the log-probability that the first items drawn are these, in any order.

    Args:
        scores: [c] fused scores of all candidates, before the temperature.
        decoding: Temperature and nucleus of the draw.
        drawn: [k] places of the items among the candidates.

    Returns:
        The natural logarithm, −inf if it cannot happen; None for more than `SET_MAX` items.
    """
    if len(drawn) > SET_MAX:
        return None
    log_probs = first_log_probs(scores, decoding)
    inside = nucleus(log_probs, decoding.nucleus)
    in_set = np.zeros(len(scores), np.bool_)
    in_set[drawn] = True
    if (in_set & ~inside).any() and (inside & ~in_set).any():
        return -math.inf  # the nucleus is drawn to its end before anything else is
    return sum(_plackett_luce(log_probs, part & in_set, part & ~in_set) for part in (inside, ~inside))


def _plackett_luce(log_probs: Float64Array, in_set: BoolArray, rest: BoolArray) -> float:
    """Log-probability that the items of the set are drawn before all the rest.

    With f(T) the probability that the first |T| draws are T, and W(T) the weights outside T:
    f(T) = Σ_{i ∈ T} f(T ∖ i) · w_i / W(T ∖ i). In logarithms throughout, so that no weight is lost beside another.
    """
    weights = log_probs[in_set]
    k = len(weights)
    if not k or not rest.any():
        return 0.0  # nothing is drawn of this part, or all of it is
    others = np.logaddexp.reduce(log_probs[rest])
    subsets = 1 << k
    of_subset = np.full(subsets, -np.inf)  # log Σ w of each subset
    for i in range(k):
        of_subset[1 << i : 2 << i] = np.logaddexp(of_subset[: 1 << i], weights[i])
    outside = np.logaddexp(others, of_subset[::-1])  # the complement within the set has the reversed number
    found = np.full(subsets, -np.inf)
    found[0] = 0.0
    numbers = np.arange(subsets)
    sizes = np.array([number.bit_count() for number in range(subsets)])
    for size in range(1, k + 1):
        these = numbers[sizes == size]
        for i in range(k):
            with_i = these[(these >> i) & 1 == 1]
            before = with_i ^ (1 << i)
            found[with_i] = np.logaddexp(found[with_i], found[before] + weights[i] - outside[before])
    return float(found[-1])
