"""The first vectors of new items: from content, else from the items they are used with, else the unknown item's."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import sparse

from model.data.dataset import Dataset, Sequences
from model.network.gpt4rec import GPT4Rec
from model.signals import cold_items
from model.signals.cold_items import ColdItems
from model.tokenizers.item_vectors import co_occurrence
from model.training.content_vectors import ContentVectors
from service.artifact.array_types import FloatArray, IntArray


@dataclass(frozen=True)
class NewRows:
    """How many new items got their first vector from what.

    Attributes:
        by_content: From items with similar content, or from their own text.
        by_use: From the items beside them in histories.
        unknown: From the unknown item.
    """

    by_content: int
    by_use: int
    unknown: int

    def __str__(self) -> str:
        return f"{self.by_content:,} by content, {self.by_use:,} by the items beside them, {self.unknown:,} as unknown"


def start_new_rows(model: GPT4Rec, n_old: int, train: Sequences, dataset: Dataset, content: ContentVectors) -> NewRows:
    """Gives new items their first vectors.

    Items that the run saw with events stand in for them (`model.signals.cold_items`). Where texts or vectors are mixed
    into the embeddings, an item's own do that.

    Args:
        model: The grown network.
        n_old: Items that the run knows.
        train: The training part of the increment.
        dataset: Provides the items' content.
        content: Vectors of the items' content.
    """
    left = np.arange(n_old, train.n_items)
    if not len(left):
        return NewRows(0, 0, 0)
    with_text = _by_own_text(model, left, train, content.in_items)
    left = left[~np.isin(left, with_text)]
    old = replace(train, item=train.item[train.item < n_old])
    alike = _only(cold_items.find(old, dataset, content.all), left)
    _place(model, alike)
    left = left[~np.isin(left, alike.items)]
    beside = _only(_by_use(train, n_old), left)
    _place(model, beside)
    left = left[~np.isin(left, beside.items)]
    if len(left):
        unknown = model.item.weight[-2].detach()
        model.set_item_vectors(torch.from_numpy(left), unknown.expand(len(left), -1))
    return NewRows(len(with_text) + len(alike), len(beside), len(left))


def _by_own_text(model: GPT4Rec, items: IntArray, train: Sequences, texts: FloatArray | None) -> IntArray:
    """Lets their texts stand in for new items; returns those that have one."""
    if model.of_content is None or texts is None:
        return items[:0]
    seen = np.bincount(train.item, minlength=train.n_items)
    with_text = items[texts[items].any(axis=1)]
    rows, gate = torch.from_numpy(with_text), model.of_content
    with torch.no_grad():
        gate.vectors[rows] = torch.from_numpy(texts[with_text]).to(gate.vectors)
        gate.seen[rows] = torch.from_numpy(seen[with_text]).to(gate.seen)
        model.item.weight[rows] = gate.project(gate.vectors[rows])
    return with_text


def _place(model: GPT4Rec, cold: ColdItems) -> None:
    if len(cold):
        vectors = cold.vectors(model.item_table().detach().cpu().numpy()[:-2])
        model.set_item_vectors(torch.from_numpy(cold.items), torch.from_numpy(vectors))


def _only(cold: ColdItems, items: IntArray) -> ColdItems:
    kept = np.isin(cold.items, items)
    return ColdItems(cold.items[kept], sparse.csr_array(cold.by_item[kept].T))


def _by_use(train: Sequences, n_old: int) -> ColdItems:
    """Returns new items with the old ones near them in histories, the nearer the heavier."""
    near = sparse.csr_array(co_occurrence(train.item, train.offsets, train.n_items))[n_old:]
    keep = sparse.diags_array((np.arange(train.n_items) < n_old).astype(np.float64))
    near = sparse.csr_array(near.astype(np.float64) @ keep)
    near.eliminate_zeros()
    total = np.asarray(near.sum(axis=1)).ravel()
    found = np.flatnonzero(total > 0)
    share = sparse.csr_array(sparse.diags_array(1 / total[found]) @ near[found])
    return ColdItems(found + n_old, sparse.csr_array(share.T))
