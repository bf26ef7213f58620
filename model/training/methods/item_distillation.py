"""From popular items to similar new ones: rarely seen items learn from the vectors of popular items with like content.

Knowledge moves from items that have many events to those that have few (exercise 11.5 of the course, answer 5; the
k-nearest-neighbour mapping of Gantner et al., 2010): the vector e_i of an item with n_i < `FEW` events is drawn to the
mean m_i of the popular items whose content is nearest,

    Σ_i |e_i − m_i|² / (1 + n_i)  /  Σ_i 1 / (1 + n_i).

m_i is not moved. Items without content take no part.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from model.signals import cold_items
from model.training.methods.base import Term
from model.training.positions import Positions, Setup

FEW = 10  # events of an item; popular items have more


class ItemDistillation(Term):
    """The distance of rarely seen items from the popular ones that are like them."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        seen = np.bincount(setup.train.item, minlength=setup.train.n_items)
        popular = replace(setup.train, item=setup.train.item[seen[setup.train.item] >= FEW])
        alike = cold_items.find(popular, setup.dataset, None)
        rows = alike.by_item.tocsr()
        device = setup.log_q.device
        self.items = torch.from_numpy(alike.items).to(device)
        self.weight = torch.from_numpy(1.0 / (1.0 + seen[alike.items])).float().to(device)
        self._row = torch.from_numpy(np.repeat(np.arange(len(alike)), np.diff(rows.indptr))).to(device)
        self._of = torch.from_numpy(rows.indices.astype(np.int64)).to(device)
        self._share = torch.from_numpy(rows.data.astype(np.float32)).to(device)

    def __call__(self, at: Positions) -> Tensor:
        """Returns the weighted mean of the squared distances; 0 where no item is rare."""
        if not len(self.items):
            return at.q.sum() * 0
        table = self.model.item_table() if at.sample is not None else at.table
        return self.distance(table)

    def distance(self, table: Tensor) -> Tensor:
        """Returns the weighted mean of the squared distances.

        Args:
            table: [N + 2, d] item table.
        """
        parts = table.detach()[self._of].float() * self._share[:, None]
        mean = torch.zeros(len(self.items), table.shape[1], device=table.device).index_add(0, self._row, parts)
        squared = (table[self.items].float() - mean).square().sum(dim=1)
        return (self.weight * squared).sum() / self.weight.sum()
