"""What items are compared by: their attributes, categories and brand, and the vectors of their texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from model.data.dataset import Dataset
from service.artifact.array_types import FloatArray, IntArray

# Pairs of items that share a feature, over all features. Beyond it the commonest features are left out: they tell the
# least and cost the most, because a feature of n items makes n² pairs.
PAIRS_MAX = 2_000_000_000


def unit_features(dataset: Dataset, item_ids: Sequence[str]) -> sparse.csr_array:
    """Returns [items, features] float32 rows whose products are the cosines of idf-weighted features.

    A feature that all items have, or that is too common to be compared by (`PAIRS_MAX`), counts for the length alone.
    """
    features = item_features(dataset, item_ids)
    count = np.asarray(features.sum(axis=0)).ravel()
    weighted = features @ sparse.diags_array(np.log(features.shape[0] / count.clip(min=1)))
    norm = np.sqrt(np.asarray(weighted.power(2).sum(axis=1)).ravel()).clip(min=1e-9)
    unit = sparse.csr_array(sparse.diags_array(1 / norm) @ weighted)[:, _affordable(count)]
    unit = sparse.csr_array(unit, dtype=np.float32)
    unit.eliminate_zeros()
    return unit


def item_features(dataset: Dataset, item_ids: Sequence[str]) -> sparse.csr_array:
    """Returns [items, features] 0/1 rows of attributes, category levels or tags, and brands."""
    vocabulary: dict[str, int] = {}
    of_item: dict[str, set[int]] = {}
    table = dataset.items.select("item_id", "category", "attributes", "brand")
    for item_id, category, attributes, brand in table.iter_rows():
        names = [*(f"a:{name}" for name in attributes or ()), *(f"c:{name}" for name in category or ())]
        names += [f"b:{brand}"] if brand else []
        of_item[item_id] = {vocabulary.setdefault(name, len(vocabulary)) for name in names}
    columns = [sorted(of_item.get(item_id, ())) for item_id in item_ids]
    flat = np.fromiter((column for row in columns for column in row), np.int64)
    ends = np.cumsum([0, *map(len, columns)])
    return sparse.csr_array((np.ones(len(flat)), flat, ends), shape=(len(item_ids), max(1, len(vocabulary))))


def _affordable(count: IntArray) -> IntArray:
    """Returns the features to compare by: all, or the rarest as far as `PAIRS_MAX` reaches."""
    order = np.argsort(count, kind="stable")
    pairs = np.cumsum(count[order].astype(np.float64) ** 2)
    return np.sort(order[pairs <= PAIRS_MAX])


def unit_rows(texts: FloatArray) -> FloatArray:
    """Returns the vectors scaled to length 1; zeros stay zeros."""
    norm = np.linalg.norm(texts, axis=1, keepdims=True)
    unit: FloatArray = np.divide(texts, norm, out=np.zeros_like(texts), where=norm > 0)
    return unit
