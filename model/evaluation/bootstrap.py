"""The paired bootstrap over users, and Holm's correction: is a difference between two systems more than chance?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SAMPLES = 10_000
CONFIDENCE = 0.95

# Draws held in memory at once.
_CHUNK = 1 << 22


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean difference, its percentile interval, and the two-sided p-value of the null hypothesis of no difference."""

    difference: float
    low: float
    high: float
    p_value: float


def paired_bootstrap(
    ours: npt.NDArray[np.float64],
    theirs: npt.NDArray[np.float64],
    samples: int = SAMPLES,
    seed: int = 0,
    confidence: float = CONFIDENCE,
    cluster: npt.NDArray[np.int64] | None = None,
) -> Interval:
    """Resamples users with replacement and returns the interval of the mean of `ours - theirs`.

    p = 2 · min(P(mean ≤ 0), P(mean ≥ 0)) over the resampled means, each with one added to count and total (Efron &
    Tibshirani, 1993, ch. 15-16), so it is never 0.

    Users with the same difference are interchangeable, so the number drawn of each kind is multinomial. That gives the
    same distribution as drawing users one by one, at the cost of the few values that a ranking metric takes.

    Args:
        ours: [users] one metric of one system.
        theirs: [users] the same metric of the other system.
        samples: Number of resamplings.
        seed: Seed of the resampling.
        confidence: Coverage of the interval.
        cluster: [users] users with the same number are drawn together, because their errors depend on each other: users
            with the same target item succeed or fail with what is known of it (the cluster bootstrap, Davison and
            Hinkley, 1997, ch. 3.8). None draws users independently.

    Raises:
        ValueError: The arrays do not pair, or the metric is not defined for every user.
    """
    if ours.shape != theirs.shape or ours.ndim != 1 or not len(ours):
        raise ValueError(f"the two systems were not measured on the same users: {ours.shape} and {theirs.shape}")
    if cluster is not None and cluster.shape != ours.shape:
        raise ValueError(f"cluster must hold a cluster for each user: {cluster.shape} and {ours.shape}")
    differences = ours - theirs
    if not np.isfinite(differences).all():
        raise ValueError("a metric that is not defined for every user cannot be paired")
    kinds, sums, sizes = _cluster_kinds(differences, np.arange(len(ours)) if cluster is None else cluster)
    clusters = int(kinds.sum())
    rng = np.random.default_rng(seed)
    means = np.empty(samples)
    step = max(1, _CHUNK // len(sums))
    for start in range(0, samples, step):
        drawn = rng.multinomial(clusters, kinds / clusters, size=min(step, samples - start))
        means[start : start + len(drawn)] = drawn @ sums / (drawn @ sizes)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    below, above = int((means <= 0).sum()), int((means >= 0).sum())
    p_value = min(1.0, 2 * (1 + min(below, above)) / (1 + samples))
    return Interval(float(differences.mean()), float(low), float(high), p_value)


def _cluster_kinds(
    differences: npt.NDArray[np.float64], cluster: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Groups interchangeable clusters. Returns, [kinds] each: number of clusters, sum of differences, size."""
    _, of = np.unique(cluster, return_inverse=True)
    whole: npt.NDArray[np.float64] = np.stack([np.bincount(of, differences), np.bincount(of)], axis=1).astype(
        np.float64
    )
    kind, count = np.unique(whole, axis=0, return_counts=True)
    return count.astype(np.int64), kind[:, 0], kind[:, 1].astype(np.int64)


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrects p-values for their number (Holm, 1979).

    The i-th smallest of m is multiplied by m - i + 1; it is never below those before it, and at most 1. The result
    keeps the order of `p_values`.
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
