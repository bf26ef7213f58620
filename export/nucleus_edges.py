"""Where rounding decides which candidates a nucleus holds.

float32 adds the mass of a nucleus with an error, and holds log-probabilities for equal that differ by less than it
resolves. So a graph may end its nucleus at another candidate than exact arithmetic does. Either is right; a comparison
needs the one that the graph took.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from model.reference.decoder import log_propensities, normalise, nucleus
from service.engine.decoding import Decoding
from service.engine.draw import Draw

# Error of a sum of probabilities, and of a difference of log-probabilities, in float32.
_SUM, _EQUAL = 1e-5, 1e-5


def nearby(log_probs: Mapping[int, float], top_p: float) -> list[set[int]]:
    """Returns the nucleus, and all that end so near to it that rounding may take them for it.

    Args:
        log_probs: Log-probabilities of all candidates.
        top_p: The mass that a nucleus reaches.
    """
    order = sorted(log_probs, key=lambda item: -log_probs[item])
    value = np.array([log_probs[item] for item in order])
    before = np.concatenate([[0.0], np.cumsum(np.exp(value))[:-1]])
    least = int((before < top_p - _SUM).sum())
    last = value[max(int((before < top_p + _SUM).sum()), 1) - 1]
    most = int((value >= last - _EQUAL).sum())
    return [nucleus(dict(log_probs), top_p), *(set(order[:size]) for size in range(max(least, 1), most + 1))]


def of_draw(draw: Draw, listed: Sequence[int], decoding: Decoding) -> tuple[set[int], float]:
    """Returns the nucleus that a sampled list was drawn from, and how far its law is from that nucleus's.

    Args:
        draw: The candidates, and the log-propensities of the list.
        listed: The items, in the order of the draw.
        decoding: How it was drawn.

    Returns:
        The nucleus that explains the log-propensities best, and the largest difference from them.
    """
    scores = zip(draw.items.tolist(), draw.scores.tolist(), strict=True)
    log_probs = normalise({item: score * decoding.inverse_temperature for item, score in scores})

    def off_by(inside: set[int]) -> float:
        want = np.array(log_propensities(log_probs, inside, listed))
        return float(np.abs(want - draw.log_propensities).max(initial=0.0))

    tried = [(off_by(inside), number, inside) for number, inside in enumerate(nearby(log_probs, decoding.nucleus))]
    least, _, inside = min(tried, key=lambda one: one[:2])
    return inside, least
