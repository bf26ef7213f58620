"""The draw of a sampled list on the host, in float64, and its law: the same as the graph's (`export.graphs.sampler`).

A list is drawn without replacement as in the Plackett–Luce model whose weights are exp(score ÷ temperature): from the
nucleus first, then from the other candidates. What is drawn next depends on what is left of the same part alone.
"""

from __future__ import annotations

import numpy as np

from service.artifact.array_types import BoolArray, Float64Array, FloatArray, IntArray
from service.artifact.graphs.noise import gumbel
from service.engine.decoding import Decoding


def draw(hashes: IntArray, scores: FloatArray, decoding: Decoding, seed: int, k: int) -> tuple[IntArray, Float64Array]:
    """Draws a list.

    Args:
        hashes: [c] hashes of the ids of all candidates (`service.artifact.graphs.noise.id_hashes`).
        scores: [c] their fused scores.
        decoding: Temperature and nucleus.
        seed: Seed of the noise.
        k: Largest length of the list.

    Returns:
        Places of the items drawn among the candidates, and the log-propensity of each, [n ≤ k].
    """
    log_probs = first_log_probs(scores, decoding)
    inside = nucleus(log_probs, decoding.nucleus)
    # The last key decides first.
    order = np.lexsort((-(log_probs + gumbel(hashes, seed)), ~inside))[:k]
    return order, log_propensities(log_probs, inside, order)


def first_log_probs(scores: FloatArray, decoding: Decoding) -> Float64Array:
    """Returns [c] the log-probability of each candidate to be drawn first, before the nucleus is taken."""
    tempered = scores.astype(np.float64) * decoding.inverse_temperature
    log_probs: Float64Array = tempered - _log_sum_exp(tempered)
    return log_probs


def nucleus(log_probs: Float64Array, top_p: float) -> BoolArray:
    """Returns [c] which candidates are in the smallest set whose mass reaches top-p, with what ties with its last."""
    descending = -np.sort(-log_probs)
    before = np.cumsum(np.exp(descending)) - np.exp(descending)
    inside: BoolArray = log_probs >= descending[before < top_p].min(initial=np.inf)
    return inside


def log_propensities(log_probs: Float64Array, inside: BoolArray, order: IntArray) -> Float64Array:
    """Returns [n] the log-probability of each draw, given those before it.

    Args:
        log_probs: [c] log-weights of the candidates, up to a constant.
        inside: [c] which of them are in the nucleus.
        order: [n] places of the items drawn.
    """
    left = np.ones(len(log_probs), np.bool_)
    found = np.empty(len(order))
    for position, place in enumerate(order):
        found[position] = log_probs[place] - _log_sum_exp(log_probs[left & (inside == inside[place])])
        left[place] = False
    return found


def _log_sum_exp(values: Float64Array) -> float:
    largest = values.max()
    return float(largest + np.log(np.exp(values - largest).sum()))
