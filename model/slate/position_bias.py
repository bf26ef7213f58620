"""How probable a look at each position is, from the items that the draw might have put at several positions.

Items at the top are better, so clicks by position say nothing of looks. A drawn list says how probable each item was
at each position: π_ip. For two positions p and q, a click on item i at p counts with the overlap weight

    π_iq ÷ (π_ip + π_iq),

so that both positions count the same mixture of items, in expectation those that might as well have been at the other
(intervention harvesting: Agarwal, Zaitsev, Wang, Li, Najork and Joachims, WSDM 2019; overlap weights: Li, Morgan and
Zaslavsky, JASA 2018). Weights are below 1, however small a propensity is. With N_pq the weighted clicks at p,
E N_pq : E N_qp = e_p : e_q, whatever attracts clicks; all pairs together are a Bradley–Terry model, whose maximum
likelihood is found by Hunter's iteration (MM algorithms for generalized Bradley–Terry models, 2004).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.slate.impressions import Impressions
from service.artifact.array_types import Float64Array

# Parts of the subjects that are left out in turn, to see how sure the estimate is.
PARTS = 25
_ITERATIONS, _CLOSE = 2_000, 1e-10
_LEAST = 1e-3
# A position counts as known from so many weighted clicks on.
LEAST_CLICKS = 20.0


@dataclass(frozen=True, slots=True, eq=False)
class PositionBias:
    """Looks at each position.

    Attributes:
        examination: [K] e, relative to the first position, none above 1.
        error: [K] standard error of its logarithm, by the delete-a-group jackknife over subjects.
        clicks: [K] weighted clicks that it rests on.
    """

    examination: Float64Array
    error: Float64Array
    clicks: Float64Array


def position_bias(seen: Impressions, factor: Float64Array | None = None) -> PositionBias:
    """Estimates the position bias of drawn lists.

    Args:
        seen: The lists.
        factor: [L, K] what else than position and item a click depends on, as a factor of its probability: whether
            somebody is still there, and what stands above. None for nothing.
    """
    parts = weighted_clicks(seen, factor)
    whole = parts.sum(axis=0)
    logs = np.stack([np.log(_strengths(whole - part)) for part in parts])
    spread = ((logs - logs.mean(axis=0)) ** 2).sum(axis=0) * (PARTS - 1) / PARTS
    return PositionBias(_strengths(whole), np.sqrt(spread), whole.sum(axis=1))


def weighted_clicks(seen: Impressions, factor: Float64Array | None) -> Float64Array:
    """Returns [parts, K, K] N of each part of the subjects; see `position_bias`."""
    k = seen.positions
    own = np.einsum("lpp->lp", seen.chance)[:, :, None]
    there = (seen.chance > 0) & (own > 0)
    weight = np.where(there, seen.chance / np.where(there, own + seen.chance, 1.0), 0.0)
    weight[:, np.arange(k), np.arange(k)] = 0.0
    clicks = seen.clicked.astype(np.float64)
    if factor is not None:
        clicks = clicks / factor
    part = seen.subject % PARTS
    found = np.zeros((PARTS, k, k))
    for number in range(PARTS):
        mine = part == number
        found[number] = np.einsum("lp,lpq->pq", clicks[mine], weight[mine])
    return found


def _strengths(wins: Float64Array) -> Float64Array:
    """[K] the Bradley–Terry strengths of weighted wins [K, K], the first 1 and none above 1."""
    k = len(wins)
    e, total, games = np.ones(k), wins.sum(axis=1), wins + wins.T
    for _ in range(_ITERATIONS):
        pairs = games / (e[:, None] + e)
        others = pairs.sum(axis=1)
        found = np.where(others > 0, total / np.where(others > 0, others, 1.0), _LEAST)
        found = np.maximum(found / max(found[0], _LEAST), _LEAST)
        if np.abs(found - e).max() < _CLOSE:
            break
        e = found
    return np.asarray(e / max(1.0, e.max()))
