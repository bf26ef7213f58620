"""The attributes of items for `network.attribute_slots`: which the network learns, and which each item has."""

from __future__ import annotations

from collections import Counter

import numpy as np

from model.data.dataset import Dataset, Sequences
from model.data.errors import DataError
from model.training.conditions import price_bands
from service.artifact.array_types import IntArray
from service.artifact.items.item_attributes import AttributeVocabulary, attribute_names

# Attributes that are learned: those of the most items.
ATTRIBUTES_MAX = 8192


def names_of(dataset: Dataset, train: Sequences) -> list[list[str]]:
    """Returns the names of the attributes of each item, in the order in which they are read."""
    found = {row["item_id"]: row for row in dataset.items.iter_rows(named=True)}
    names = []
    for item_id, band in zip(train.item_ids, price_bands(dataset, train), strict=True):
        row = found.get(item_id, {})
        names.append(attribute_names(row.get("category") or (), row.get("brand"), row.get("attributes") or (), band))
    return names


def fit_attributes(dataset: Dataset, train: Sequences, slots: int) -> AttributeVocabulary | None:
    """Returns the attributes that the items of the training part have; None without slots.

    Args:
        dataset: Provides the items.
        train: The training part; attributes of other items are unknown, because nothing was learned of them.
        slots: How many attributes of an item are read.

    Raises:
        DataError: The items have none.
    """
    if not slots:
        return None
    names = names_of(dataset, train)
    count = Counter(name for item in np.unique(train.item).tolist() for name in names[item])
    if not count:
        raise DataError(
            "network.attribute_slots needs items with a category, a brand, a price or attributes, but the data has "
            "none",
            fix="leave out network.attribute_slots, or import a table of items",
        )
    most = sorted(count, key=lambda name: (-count[name], name))[:ATTRIBUTES_MAX]
    return AttributeVocabulary(tuple(most), slots)


def attribute_rows(vocabulary: AttributeVocabulary | None, dataset: Dataset, train: Sequences) -> IntArray | None:
    """Returns the attributes [N, slots] of all items of the catalogue, those without events included."""
    return None if vocabulary is None else vocabulary.table(names_of(dataset, train))
