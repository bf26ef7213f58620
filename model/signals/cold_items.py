"""Cold items: items of the catalogue without training events, and the items with events that stand in for them.

What signals learn from events says nothing of such an item. Each takes the mean over the `NEIGHBOURS` items with events
whose content is nearest, and those that are as near as they are, with weights proportional to the cosine: by text and
given vector where it has one, else by its attributes, categories and brand (the k-nearest-neighbour mapping of Gantner
et al., 2010).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy import sparse

from model.data.dataset import Dataset, Sequences
from model.signals.features import unit_features, unit_rows
from model.signals.neighbour_rows import blocks, largest
from service.artifact.array_types import FloatArray, IntArray

NEIGHBOURS = 5
# Items that are as near as the last of these stand in as well, at most so many in all: else chance would choose among
# the items of a category, and all its cold items would be copies of the same few.
EQUALS_MAX = 100
_EQUAL = 1e-6
# Pairs of a cold item and one with events whose texts are compared; beyond it that takes longer than an export should.
TEXT_PAIRS_MAX = 150_000**2
# What a cold item keeps of the direction of its own vector. Without it items of equal content would have equal scores,
# and rounding would choose among them.
_OWN = 0.02
# A mean of vectors that keeps less than this part of their length is what is left of vectors that cancel each other
# out: its direction is chance.
_AGREE = 0.1


@dataclass(frozen=True, eq=False)
class ColdItems:
    """The cold items with content, and what stands in for each.

    Attributes:
        items: [m] their catalogue indices, ascending.
        share: [n_items, m] share of each item with events in what stands in for a cold item. Columns add up to 1.
        without_content: Number of other items without events: nothing stands in for them.
        note: What was left out; empty if nothing was.
    """

    items: IntArray
    share: sparse.csr_array
    without_content: int = 0
    note: str = ""

    def __len__(self) -> int:
        return len(self.items)

    @cached_property
    def by_item(self) -> sparse.csr_array:
        """[m, n_items] the shares, a row for each cold item."""
        return sparse.csr_array(self.share.T)

    def to_json(self) -> dict[str, Any]:
        """Returns what the manifest says of them."""
        return {
            "items": len(self),
            "without_content": self.without_content,
            "neighbours": NEIGHBOURS,
            "notes": self.notes(),
        }

    def notes(self) -> list[str]:
        """Returns sentences about what stands in for nothing, for a reader of the command's output."""
        without = (
            f"{self.without_content:,} items have no events in the training part, and share no attribute, category, "
            "brand or text with an item that has: nothing speaks for them in lists"
        )
        return [*([without] if self.without_content else []), *([self.note] if self.note else [])]

    def column(self, values: FloatArray) -> FloatArray:
        """Returns values [n_items], in which those of cold items are the means over what stands in for them."""
        out = np.array(values, np.float32)
        out[self.items] = self.by_item @ values.astype(np.float64)
        return out

    def vectors(self, table: FloatArray) -> FloatArray:
        """Returns the vectors [m, d] of cold items: means of vectors that stand in for them.

        Averaging shortens a vector, and scores are inner products, so a mean gets the mean length of its parts. One of
        vectors that hardly agree stays short. A little of the item's own vector tells it from items of equal content.

        Args:
            table: [n_items, d] item vectors.
        """
        mean = np.asarray(self.by_item @ table.astype(np.float64))
        length = self.by_item @ np.linalg.norm(table.astype(np.float64), axis=1)
        left = np.linalg.norm(mean, axis=1)
        agree = left > _AGREE * length
        scaled = mean * np.where(agree, length / left.clip(1e-12), 1.0)[:, None]
        own = table[self.items].astype(np.float64)
        own *= (_OWN * length / np.linalg.norm(own, axis=1).clip(1e-12))[:, None]
        vectors: FloatArray = (scaled + own).astype(np.float32)
        return vectors


def find(train: Sequences, dataset: Dataset, texts: FloatArray | None) -> ColdItems:
    """Finds the cold items with content, and what stands in for them. Deterministic.

    Args:
        train: The training part.
        dataset: Provides the items' categories, brands and attributes.
        texts: [items, d] vectors of texts and given vectors, zero for an item without; None without any.
    """
    n = train.n_items
    seen = np.bincount(train.item, minlength=n) > 0
    warm, cold, note = np.flatnonzero(seen), np.flatnonzero(~seen), ""
    near: dict[int, tuple[IntArray, FloatArray]] = {}
    if texts is not None and len(cold) * len(warm) > TEXT_PAIRS_MAX:
        note = f"{len(cold):,} items without events are too many to compare by text; they are compared by attributes"
    elif texts is not None:
        near |= _by_texts(texts, warm, cold)
    rest = np.array([item for item in cold.tolist() if item not in near], np.int64)
    if len(rest):
        near |= _by_features(dataset, train.item_ids, warm, rest)
    return _of(near, n, len(cold) - len(near), note)


def _of(near: dict[int, tuple[IntArray, FloatArray]], n_items: int, without_content: int, note: str) -> ColdItems:
    items = np.array(sorted(near), np.int64)
    rows = [near[item][0] for item in items.tolist()]
    shares = [near[item][1] / near[item][1].sum(dtype=np.float64) for item in items.tolist()]
    ends = np.cumsum([0, *map(len, rows)])
    flat = np.concatenate([np.zeros(0, np.int64), *rows]), np.concatenate([np.zeros(0), *shares])
    by_item = sparse.csr_array((flat[1], flat[0], ends), shape=(len(items), n_items))
    return ColdItems(items, sparse.csr_array(by_item.T), without_content, note)


def _by_texts(texts: FloatArray, warm: IntArray, cold: IntArray) -> dict[int, tuple[IntArray, FloatArray]]:
    """Returns the nearest items by text, and their cosines, of each cold item with a text."""
    unit = unit_rows(texts)
    has = np.linalg.norm(unit, axis=1) > 0
    warm, cold = warm[has[warm]], cold[has[cold]]
    if not len(warm):
        return {}
    other = np.ascontiguousarray(unit[warm].T)
    near: dict[int, tuple[IntArray, FloatArray]] = {}
    for part in blocks(len(cold), len(warm)):
        for item, cosine in zip(cold[part].tolist(), unit[cold[part]] @ other, strict=True):
            columns, values = _nearest(np.arange(len(warm)), cosine)
            if len(columns):
                near[item] = (warm[columns], values)
    return near


def _nearest(columns: IntArray, cosine: FloatArray) -> tuple[IntArray, FloatArray]:
    """Returns the `NEIGHBOURS` columns with the largest positive cosines, and those that equal the last of them."""
    _, nearest = largest(columns, cosine, NEIGHBOURS)
    if not len(nearest):
        return columns[:0], nearest
    near = np.flatnonzero(cosine >= max(float(nearest[-1]) - _EQUAL, 1e-12))
    if len(near) > EQUALS_MAX:
        columns, cosine = largest(columns[near], cosine[near], len(near))
        near = np.linspace(0, len(near) - 1, EQUALS_MAX).astype(np.int64)
    return columns[near], cosine[near]


def _by_features(
    dataset: Dataset, item_ids: Sequence[str], warm: IntArray, cold: IntArray
) -> dict[int, tuple[IntArray, FloatArray]]:
    """Returns the same by attributes, categories and brand."""
    unit = unit_features(dataset, item_ids)
    other = sparse.csr_array(unit[warm].T)
    near: dict[int, tuple[IntArray, FloatArray]] = {}
    for part in blocks(len(cold), max(1, len(warm))):
        product = sparse.csr_array(unit[cold[part]] @ other)
        for row, item in enumerate(cold[part].tolist()):
            span = slice(product.indptr[row], product.indptr[row + 1])
            columns, values = _nearest(product.indices[span], product.data[span])
            if len(columns):
                near[item] = (warm[columns], values)
    return near
