"""Ranking metrics: a value for each user, averaged afterwards.

A list is a row of item indices, the best first, padded with -1. There is one target a user, so recall@k is the hit rate
and the ideal DCG is 1. NaN marks a user for whom a metric is not defined; `mean` leaves it out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy import sparse

from model.data.dataset import CategoryKind
from service.artifact.array_types import Float64Array, IntArray

KS: tuple[int, ...] = (5, 10, 20)
NOT_RANKED = -1


def target_ranks(lists: IntArray, targets: IntArray) -> IntArray:
    """Returns the 0-based rank [users] of the target in each list [users, depth], `NOT_RANKED` where it is absent."""
    hit = lists == targets[:, None]
    return np.where(hit.any(axis=1), hit.argmax(axis=1), NOT_RANKED)


def recall(ranks: IntArray, k: int) -> Float64Array:
    """Returns 1 [users] where the target is among the first k, else 0."""
    return _hit(ranks, k).astype(np.float64)


def ndcg(ranks: IntArray, k: int) -> Float64Array:
    """Returns 1 / log2(rank + 2) [users] for a target among the first k, else 0 (Järvelin & Kekäläinen, 2002)."""
    return np.where(_hit(ranks, k), 1 / np.log2(np.maximum(ranks, 0) + 2), 0.0)


def mrr(ranks: IntArray, k: int) -> Float64Array:
    """Returns 1 / (rank + 1) [users] for a target among the first k, else 0."""
    return np.where(_hit(ranks, k), 1 / (np.maximum(ranks, 0) + 1), 0.0)


def coverage(lists: IntArray, k: int, n_items: int) -> float:
    """Returns the share of the catalogue that is among the first k of at least one list: one figure for all users."""
    shown = np.unique(lists[:, :k])
    return float((shown >= 0).sum() / max(1, n_items))


def self_information(train_items: IntArray, n_items: int) -> Float64Array:
    """Returns the self-information of each item [items] in bits: -log2 of its share of the training events.

    An item without events counts as seen once, since its true share is not known.
    """
    count = np.bincount(train_items, minlength=n_items).astype(np.float64)
    share = np.maximum(count, 1) / max(1.0, float(count.sum()))
    return np.asarray(-np.log2(share), np.float64)


def novelty(lists: IntArray, k: int, information: Float64Array) -> Float64Array:
    """Returns the mean self-information of the first k [users], in bits (Zhou et al., PNAS 2010); NaN if empty."""
    shown = lists[:, :k]
    bits = np.where(shown >= 0, information[np.maximum(shown, 0)], 0.0).sum(axis=1)
    return _divide(bits, (shown >= 0).sum(axis=1))


def diversity(lists: IntArray, k: int, content: sparse.csr_array) -> Float64Array:
    """Returns the intra-list diversity of the first k [users]: 1 - the mean cosine over all pairs of a list's items.

    This is the complement of the intra-list similarity of Ziegler et al. (WWW 2005). With unit vectors x the sum over
    pairs is ‖Σ x‖² - n, so no pair has to be formed.

    Args:
        lists: [users, depth] item indices.
        k: Length of the lists that are measured.
        content: [items, features]; for sets (categories, attributes) a 0/1 row each, so that the cosine of two items is
            |A ∩ B| / √(|A|·|B|). Items without content are left out.

    Returns:
        [users], NaN where fewer than two items have content.
    """
    shown = lists[:, :k]
    squared = np.asarray(content.multiply(content).sum(axis=1), np.float64).ravel()
    length = np.sqrt(squared)
    unit = sparse.diags_array(np.divide(1, length, out=np.zeros_like(length), where=length > 0)) @ content
    row, column = np.nonzero(shown >= 0)
    items = shown[row, column]
    row, items = row[length[items] > 0], items[length[items] > 0]
    picked = sparse.csr_array((np.ones(len(row)), (row, items)), shape=(len(lists), len(length)))
    total = picked @ unit
    norm = np.asarray(total.multiply(total).sum(axis=1), np.float64).ravel()
    n = np.bincount(row, minlength=len(lists)).astype(np.float64)
    similar = _divide(norm - n, n * (n - 1))
    # rounding may leave the similarity of equal items slightly above 1
    return np.clip(1 - similar, 0.0, None)


def item_content(items: pl.DataFrame, item_ids: Sequence[str], kind: CategoryKind = "tags") -> sparse.csr_array:
    """Returns 0/1 rows of categories and attributes [items, features], in the order of `item_ids`.

    In a category path every level is a feature together with its parents: "Accessories" under "Hair" and under "Nails"
    differ. Items that the table lacks have an empty row.
    """
    features: dict[tuple[str, ...], int] = {}
    of_item: dict[str, set[int]] = {}
    for item_id, categories, attributes in items.select("item_id", "category", "attributes").iter_rows():
        levels = tuple(categories or ())
        named = [
            ("category", *(levels[: depth + 1] if kind == "path" else (level,))) for depth, level in enumerate(levels)
        ]
        named += [("attribute", attribute) for attribute in attributes or ()]
        of_item[item_id] = {features.setdefault(feature, len(features)) for feature in named}
    columns = [sorted(of_item.get(item_id, ())) for item_id in item_ids]
    ends = np.cumsum([0, *map(len, columns)])
    flat = np.array([column for row in columns for column in row], np.int64)
    return sparse.csr_array((np.ones(len(flat)), flat, ends), shape=(len(item_ids), max(1, len(features))))


def mean(values: Float64Array) -> float | None:
    """Returns the mean over the users for whom the metric is defined; None where there are none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else None


def _hit(ranks: IntArray, k: int) -> npt.NDArray[np.bool_]:
    return (ranks >= 0) & (ranks < k)


def _divide(numerator: Float64Array, denominator: npt.NDArray[np.float64] | IntArray) -> Float64Array:
    """Divides element by element; NaN where the denominator is 0."""
    out = np.full(len(numerator), np.nan)
    np.divide(numerator, denominator, out=out, where=np.asarray(denominator) > 0)
    return out
