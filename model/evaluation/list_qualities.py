"""What lists are like beside accurate: how they spread over the catalogue, how they differ, and whom they serve.

A list is a row of item indices, the best first, padded with -1 (`model.evaluation.metrics`). *Exposure* is how often each item is
shown, over all lists; entropy, inequality and divergence are of its shares.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from service.artifact.array_types import Float64Array, IntArray

POPULARITY_GROUPS = ("head", "middle", "tail")


def exposure(lists: IntArray, k: int, n_items: int) -> IntArray:
    """[items] how many of the lists [users, depth] show an item among their first k."""
    shown = lists[:, :k]
    return np.bincount(shown[shown >= 0], minlength=n_items).astype(np.int64)


def entropy(counts: IntArray) -> float:
    """Shannon entropy of the shares of counts [items], in bits: at most log2(items), 0 where one item has everything or
    nothing was counted."""
    total = counts.sum()
    if not total:
        return 0.0
    share = counts[counts > 0] / total
    return float(max(0.0, -(share * np.log2(share)).sum()))


def gini(counts: IntArray) -> float:
    """Gini coefficient of counts [items]: 0 where all are equal, 1 - 1/items where one has everything (Gini, 1912; of
    recommendations: Fleder and Hosanagar, 2009). 0 where nothing was counted."""
    n, total = len(counts), counts.sum()
    if not total:
        return 0.0
    rank = np.arange(1, n + 1)
    return float(((2 * rank - n - 1) * np.sort(counts)).sum() / (n * total))


def popularity_group(train_items: IntArray, n_items: int) -> IntArray:
    """[items] 0 head, 1 middle, 2 tail: a third of the training events each, the most popular items first.

    An item belongs where its first event lies when all events are laid out in that order; those without any are tail.
    """
    count = np.bincount(train_items, minlength=n_items)
    order = np.argsort(-count, kind="stable")
    before = np.cumsum(count[order]) - count[order]
    group = np.empty(n_items, np.int64)
    group[order] = np.where(count[order] > 0, np.minimum(3 * before // max(1, count.sum()), 2), 2)
    return group


def tail_share(lists: IntArray, k: int, group: IntArray) -> Float64Array:
    """[users] share of the tail among the first k (average percentage of long tail items, Abdollahpouri et al., 2019);
    NaN for an empty list."""
    shown = lists[:, :k]
    tail = (group[np.maximum(shown, 0)] == POPULARITY_GROUPS.index("tail")) & (shown >= 0)
    size = (shown >= 0).sum(axis=1)
    share: Float64Array = np.divide(tail.sum(axis=1), size, out=np.full(len(lists), np.nan), where=size > 0)
    return share


def inter_list_diversity(lists: IntArray, k: int, n_items: int) -> Float64Array:
    """[users] mean of 1 - |A ∩ B| / k over the lists B of all others, first k each; its mean over the users is
    that over all pairs (Zhou et al., PNAS 2010). NaN for a single user.

    An item that c lists show is shared with c - 1 others, so nobody is compared with anybody.
    """
    users = len(lists)
    if users < 2:
        return np.full(users, np.nan)
    shown = lists[:, :k]
    others = exposure(lists, k, n_items) - 1
    shared = np.where(shown >= 0, others[np.maximum(shown, 0)], 0).sum(axis=1)
    return np.asarray(1 - shared / (k * (users - 1)), np.float64)


def of_pairs(values: Float64Array) -> Float64Array:
    """[users] of a measure whose mean is one over pairs of users (`inter_list_diversity`), spread twice as far about
    that mean, so that the mean over resampled users varies as it does: a user stands on either side of the pairs, and
    the variance of such a mean is that of twice the users' values (Hoeffding, 1948)."""
    mean = values.mean()
    return np.asarray(mean + 2 * (values - mean), np.float64)


def jensen_shannon(first: IntArray, second: IntArray) -> float:
    """Jensen-Shannon divergence of the shares of two counts [items], in bits: 0 where they are alike, 1 where they have
    nothing in common (Lin, 1991). Raises ValueError where one of them is of nothing."""
    p, q = _shares(first), _shares(second)
    middle = (p + q) / 2
    return float(np.clip((_divergence(p, middle) + _divergence(q, middle)) / 2, 0.0, 1.0))


def kullback_leibler(true: IntArray, shown: IntArray) -> float:
    """KL(true ‖ shown) of the shares of two counts [items], in bits, with one added to each count of what is shown: an
    item never shown is then rare and not impossible (Laplace). Raises ValueError where nothing is true."""
    return _divergence(_shares(true), _shares(shown + 1))


def length_groups(lengths: IntArray, parts: int = 3) -> tuple[IntArray, list[tuple[int, int]]]:
    """[users] group by length, and the least and greatest length of each group, of equal size but for ties, which stay
    together; fewer groups where ties leave one empty."""
    edges = np.unique(np.quantile(lengths, np.arange(1, parts) / parts, method="lower"))
    group = np.searchsorted(edges, lengths, side="left")
    present, group = np.unique(group, return_inverse=True)
    bounds = [(int(lengths[group == g].min()), int(lengths[group == g].max())) for g in range(len(present))]
    return group.astype(np.int64), bounds


def _shares(counts: IntArray) -> npt.NDArray[np.float64]:
    total = counts.sum()
    if not total:
        raise ValueError("nothing was counted, so there are no shares")
    return np.asarray(counts / total, np.float64)


def _divergence(p: npt.NDArray[np.float64], q: npt.NDArray[np.float64]) -> float:
    """KL(p ‖ q) in bits where q is positive wherever p is."""
    held = p > 0
    return float((p[held] * np.log2(p[held] / q[held])).sum())
