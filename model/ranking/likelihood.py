"""The listwise likelihood of weights, and the weights that maximise it under a Gaussian prior.

The probability of a question's target is the softmax over its candidates of Σ_f w_f · x_f (the conditional logit of
McFadden, 1974; the top-one likelihood of ListNet, Cao et al., 2007). Its logarithm is concave in w, and so is that of
the prior: there is one maximum, which Newton's method finds from any start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model.ranking.candidates import Block
from service.artifact.array_types import Float64Array, FloatArray

# A step that would raise the log-likelihood by less is the last one.
_LEAST_GAIN = 1e-4
_MOST_STEPS = 60
# Share of the gain promised by a step that it must keep, and the shortest step tried.
_ARMIJO, _SHORTEST = 1e-4, 1e-6


@dataclass(frozen=True, eq=False)
class Prior:
    """Independent normal priors of the weights: [signals] mean, and one precision (1 / variance) for all.

    Attributes:
        free: [signals] whether a weight is learned; one that is not keeps its mean.
    """

    mean: Float64Array
    precision: float
    free: npt.NDArray[np.bool_]

    @classmethod
    def around(cls, mean: Float64Array, precision: float, fixed_at_0: Sequence[int] = ()) -> Prior:
        """Returns a prior in which all weights are learned but some, which are 0."""
        free = np.ones(len(mean), bool)
        free[list(fixed_at_0)] = False
        return cls(np.where(free, mean, 0.0), precision, free)


@dataclass(frozen=True, eq=False)
class Fitted:
    """The most probable weights.

    Attributes:
        weights: [signals] the weights.
        hessian: [signals, signals] of the negative log-posterior there; its inverse is the covariance of the weights.
        log_likelihood: Of all questions, without the prior.
    """

    weights: Float64Array
    hessian: Float64Array
    log_likelihood: float

    def covariance(self, free: npt.NDArray[np.bool_]) -> Float64Array:
        """Returns the covariance [signals, signals] of the weights (Laplace); 0 for those that were not learned."""
        out = np.zeros_like(self.hessian)
        out[np.ix_(free, free)] = np.linalg.inv(self.hessian[np.ix_(free, free)])
        return out


def scores(block: Block, weights: Float64Array) -> FloatArray:
    """Returns the score of each candidate [rows]."""
    out: FloatArray = block.values @ weights.astype(np.float32)
    return out


def log_likelihoods(block: Block, weights: Float64Array) -> Float64Array:
    """Returns the log-probability of each question's target [questions]."""
    z = scores(block, weights)
    top = np.maximum.reduceat(z, block.starts)
    total = np.add.reduceat(np.exp(z - np.repeat(top, block.length)), block.starts, dtype=np.float64)
    return np.asarray(z[block.target] - top - np.log(total), np.float64)


def fit(blocks: Sequence[Block], prior: Prior, start: Float64Array | None = None) -> Fitted:
    """Finds the most probable weights by Newton's method with a backtracking line search. Deterministic.

    Args:
        blocks: Answered questions.
        prior: The prior.
        start: [signals] where to start; None: at the prior's mean.
    """
    free = np.flatnonzero(prior.free)
    weights = np.where(prior.free, prior.mean if start is None else start, prior.mean)
    value, gradient, hessian = _posterior(blocks, weights, prior)
    for _ in range(_MOST_STEPS):
        step = np.zeros_like(weights)
        step[free] = np.linalg.solve(hessian[np.ix_(free, free)], gradient[free])
        promised = float(gradient @ step)
        if promised / 2 < _LEAST_GAIN:
            break
        length = 1.0
        while True:
            moved = _posterior(blocks, weights + length * step, prior)
            if moved[0] >= value + _ARMIJO * length * promised or length < _SHORTEST:
                break
            length /= 2
        if not moved[0] > value:  # no digits are left to gain
            break
        weights = weights + length * step
        value, gradient, hessian = moved
    off = weights - prior.mean
    return Fitted(weights, hessian, value + 0.5 * prior.precision * float(off @ off))


def _posterior(
    blocks: Sequence[Block], weights: Float64Array, prior: Prior
) -> tuple[float, Float64Array, Float64Array]:
    """Returns the log-posterior up to a constant, its gradient, and the Hessian of its negative."""
    off = weights - prior.mean
    value = -0.5 * prior.precision * float(off @ off)
    gradient = -prior.precision * off
    hessian = prior.precision * np.eye(len(weights))
    for block in blocks:
        z = scores(block, weights)
        top = np.maximum.reduceat(z, block.starts)
        weight = np.exp(z - np.repeat(top, block.length))
        total = np.add.reduceat(weight, block.starts)
        weight /= np.repeat(total, block.length)
        value += float((z[block.target] - top - np.log(total.astype(np.float64))).sum())
        weighted = block.values * weight[:, None]
        mean = np.add.reduceat(weighted, block.starts, axis=0).astype(np.float64)
        gradient += block.values[block.target].astype(np.float64).sum(axis=0) - mean.sum(axis=0)
        hessian += (weighted.T @ block.values).astype(np.float64) - mean.T @ mean
    return value, gradient, hessian
