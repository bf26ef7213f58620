"""What a signal may be fitted on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from model.data.dataset import Dataset, Sequences
from model.signals import cold_items
from model.signals.cold_items import ColdItems
from model.signals.transition_table import transition_table
from service.artifact.array_types import FloatArray
from service.artifact.scorers.item_cf import ItemCF
from service.artifact.scorers.neighbour_table import NeighbourTable
from service.artifact.scorers.popularity import Popularity


@dataclass(frozen=True)
class SignalData:
    """What signals are fitted on. Nothing in it knows a held-out event.

    Attributes:
        train: The training part.
        dataset: Provides the items' categories, brands and attributes.
        item_cf: Tuned item-CF.
        popularity: How often each item was interacted with.
        texts: [items, d] sentence vectors, zero for an item without a text; None without texts.
        vectors: [items, e] vectors that came with the data, zero for an item without one; None without vectors.
    """

    train: Sequences
    dataset: Dataset
    item_cf: ItemCF
    popularity: Popularity
    texts: FloatArray | None = None
    vectors: FloatArray | None = None

    @cached_property
    def cold(self) -> ColdItems:
        """Items without events, and what stands in for them: found once for all signals."""
        both = [part for part in (self.texts, self.vectors) if part is not None]
        return cold_items.find(self.train, self.dataset, np.concatenate(both, axis=1) if both else None)

    @cached_property
    def transitions(self) -> NeighbourTable | None:
        """The directed transitions, which are a signal and the steps of another one; None if there are none."""
        return transition_table(self.train)
