"""Whether a difference between two systems is more than chance: the paired bootstrap over users."""

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
    """Mean difference, its percentile interval, and the two-sided p-value of "there is no difference"."""

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
    """Resample users with replacement and look at the mean of `ours - theirs`, both [users] of one metric.

    Users with one number in `cluster` [users] are drawn together, as they err together: those that are asked for one
    item are right or wrong with what is known of it (the cluster bootstrap, Davison and Hinkley, 1997, ch. 3.8).

    p = 2 · min(P(mean ≤ 0), P(mean ≥ 0)) over the resampled means, each with one added to count and total
    (Efron & Tibshirani, 1993, ch. 15-16), so it is never 0. Users with the same difference are alike: how
    many of each are drawn is multinomial, which gives the same distribution as drawing users one by one, at
    the cost of the few values a ranking metric takes. Raises ValueError for arrays that do not pair.
    """
    if ours.shape != theirs.shape or ours.ndim != 1 or not len(ours):
        raise ValueError(f"not the same users: {ours.shape} and {theirs.shape}")
    if cluster is not None and cluster.shape != ours.shape:
        raise ValueError(f"a cluster for each user is needed: {cluster.shape} and {ours.shape}")
    differences = ours - theirs
    if not np.isfinite(differences).all():
        raise ValueError("a metric that is not defined for every user cannot be paired")
    drawn_together, sums, sizes = _alike(differences, np.arange(len(ours)) if cluster is None else cluster)
    groups = int(drawn_together.sum())
    rng = np.random.default_rng(seed)
    means = np.empty(samples)
    step = max(1, _CHUNK // len(sums))
    for at in range(0, samples, step):
        drawn = rng.multinomial(groups, drawn_together / groups, size=min(step, samples - at))
        means[at : at + len(drawn)] = drawn @ sums / (drawn @ sizes)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    below, above = int((means <= 0).sum()), int((means >= 0).sum())
    p_value = min(1.0, 2 * (1 + min(below, above)) / (1 + samples))
    return Interval(float(differences.mean()), float(low), float(high), p_value)


def _alike(
    differences: npt.NDArray[np.float64], cluster: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Kinds of clusters that are alike, [kinds] each: how many there are, the sum of their differences, their size."""
    _, of = np.unique(cluster, return_inverse=True)
    whole: npt.NDArray[np.float64] = np.stack([np.bincount(of, differences), np.bincount(of)], axis=1).astype(
        np.float64
    )
    kind, count = np.unique(whole, axis=0, return_counts=True)
    return count.astype(np.int64), kind[:, 0], kind[:, 1].astype(np.int64)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for how many they are (Holm, 1979): the i-th smallest of m times m - i + 1, never below those
    before it, at most 1."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for place, at in enumerate(sorted(range(len(p_values)), key=lambda at: p_values[at])):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[at]))
        adjusted[at] = largest
    return adjusted
