"""Qualities of lists beyond accuracy: how they spread over the catalogue, and how they differ between users.

A list is a row of item indices, the best first, padded with -1 (`model.evaluation.metrics`). *Exposure* is how often
each item is shown, over all lists; entropy, inequality and divergence are computed from its shares.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from service.artifact.array_types import Float64Array, IntArray

POPULARITY_GROUPS = ("head", "middle", "tail")


def exposure(lists: IntArray, k: int, n_items: int) -> IntArray:
    """Counts in how many of the lists [users, depth] each item [items] is among the first k."""
    shown = lists[:, :k]
    return np.bincount(shown[shown >= 0], minlength=n_items).astype(np.int64)


def entropy(counts: IntArray) -> float:
    """Returns the Shannon entropy of the shares of counts [items], in bits.

    At most log2(items); 0 where one item has everything or all counts are 0.
    """
    total = counts.sum()
    if not total:
        return 0.0
    share = counts[counts > 0] / total
    return float(max(0.0, -(share * np.log2(share)).sum()))


def gini(counts: IntArray) -> float:
    """Returns the Gini coefficient of counts [items] (Gini, 1912; of recommendations: Fleder and Hosanagar, 2009).

    0 where all counts are equal, 1 - 1/items where one item has everything.
    """
    n, total = len(counts), counts.sum()
    if not total:
        return 0.0
    rank = np.arange(1, n + 1)
    return float(((2 * rank - n - 1) * np.sort(counts)).sum() / (n * total))


def popularity_group(train_items: IntArray, n_items: int) -> IntArray:
    """Groups items by popularity: 0 head, 1 middle, 2 tail [items], a third of the training events each.

    With all events sorted by the popularity of their item, an item belongs to the third in which its first event lies.
    Items without events belong to the tail.
    """
    count = np.bincount(train_items, minlength=n_items)
    order = np.argsort(-count, kind="stable")
    before = np.cumsum(count[order]) - count[order]
    group = np.empty(n_items, np.int64)
    group[order] = np.where(count[order] > 0, np.minimum(3 * before // max(1, count.sum()), 2), 2)
    return group


def tail_share(lists: IntArray, k: int, group: IntArray) -> Float64Array:
    """Returns the share of tail items among the first k of each list [users]; NaN for an empty list.

    Its mean is the average percentage of long tail items (Abdollahpouri et al., 2019).
    """
    shown = lists[:, :k]
    tail = (group[np.maximum(shown, 0)] == POPULARITY_GROUPS.index("tail")) & (shown >= 0)
    size = (shown >= 0).sum(axis=1)
    share: Float64Array = np.divide(tail.sum(axis=1), size, out=np.full(len(lists), np.nan), where=size > 0)
    return share


def inter_list_diversity(lists: IntArray, k: int, n_items: int) -> Float64Array:
    """Returns how much each list differs from the others: the mean of 1 - |A ∩ B| / k over all other lists B.

    [users], from the first k of each list; NaN for a single user. The mean over the users is the mean over all pairs
    (Zhou et al., PNAS 2010). An item that c lists show is shared with c - 1 others, so no pair has to be formed.
    """
    users = len(lists)
    if users < 2:
        return np.full(users, np.nan)
    shown = lists[:, :k]
    others = exposure(lists, k, n_items) - 1
    shared = np.where(shown >= 0, others[np.maximum(shown, 0)], 0).sum(axis=1)
    return np.asarray(1 - shared / (k * (users - 1)), np.float64)


def widened_for_pairs(values: Float64Array) -> Float64Array:
    """Prepares values [users] of a measure over pairs (`inter_list_diversity`) for a bootstrap over users.

    Each user is on either side of a pair, so the variance of the mean over pairs is that of twice the users' values
    (Hoeffding, 1948). The values are therefore moved twice as far from their mean.
    """
    mean = values.mean()
    return np.asarray(mean + 2 * (values - mean), np.float64)


def jensen_shannon(first: IntArray, second: IntArray) -> float:
    """Returns the Jensen-Shannon divergence of the shares of two counts [items], in bits (Lin, 1991).

    0 where the shares are equal, 1 where no item has a share in both.

    Raises:
        ValueError: All counts of one of them are 0.
    """
    p, q = _shares(first), _shares(second)
    middle = (p + q) / 2
    return float(np.clip((_divergence(p, middle) + _divergence(q, middle)) / 2, 0.0, 1.0))


def kullback_leibler(true: IntArray, shown: IntArray) -> float:
    """Returns KL(true ‖ shown) of the shares of two counts [items], in bits.

    One is added to each count of `shown`, so that an item that is never shown is rare and not impossible (Laplace).

    Raises:
        ValueError: All counts of `true` are 0.
    """
    return _divergence(_shares(true), _shares(shown + 1))


def length_groups(lengths: IntArray, parts: int = 3) -> tuple[IntArray, list[tuple[int, int]]]:
    """Groups users by the length of their history.

    Groups are of equal size, except that equal lengths stay together; there are fewer than `parts` where that leaves
    one empty.

    Returns:
        The group of each user [users], and the smallest and largest length of each group.
    """
    edges = np.unique(np.quantile(lengths, np.arange(1, parts) / parts, method="lower"))
    group = np.searchsorted(edges, lengths, side="left")
    present, group = np.unique(group, return_inverse=True)
    bounds = [(int(lengths[group == g].min()), int(lengths[group == g].max())) for g in range(len(present))]
    return group.astype(np.int64), bounds


def _shares(counts: IntArray) -> npt.NDArray[np.float64]:
    total = counts.sum()
    if not total:
        raise ValueError("nothing was counted: all counts are 0, so there are no shares")
    return np.asarray(counts / total, np.float64)


def _divergence(p: npt.NDArray[np.float64], q: npt.NDArray[np.float64]) -> float:
    """Returns KL(p ‖ q) in bits; q must be positive wherever p is."""
    positive = p > 0
    return float((p[positive] * np.log2(p[positive] / q[positive])).sum())
