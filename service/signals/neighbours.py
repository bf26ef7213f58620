"""The signal of a neighbour table: item-CF, transitions, walks and content are all of this kind."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from service.artifact.array_types import FloatArray, IntArray
from service.artifact.scorers.neighbour_table import NeighbourTable
from service.signals.interface import Causes
from service.signals.item_values import NO_VALUES, ItemValues
from service.signals.user_history import UserHistory


@dataclass(frozen=True, slots=True)
class NeighbourSignal:
    """Neighbours of the newest events: `x(i) = s(i) / max s`, `s(i) = Σ_j decay^age(j) · sim(j, i)`.

    Attributes:
        name: Name of the signal.
        table: The neighbours, and decay and horizon of the sum. Items seen before the log do not enter.
    """

    name: str
    table: NeighbourTable

    def values(self, history: UserHistory) -> ItemValues:
        """Returns the items' values in 0 … 1; nothing if no event has a neighbour."""
        items, sums = self.table.sums(history.items)
        top = sums.max(initial=0)
        return ItemValues(items, sums / top) if top > 0 else NO_VALUES

    def causes(self, history: UserHistory, items: IntArray) -> Causes:
        """Returns what each event of the history contributed to the values of the items [k]."""
        _, sums = self.table.sums(history.items)
        shares = self.table.shares(history.items, items)
        top = float(sums.max(initial=0))
        log: FloatArray = (shares / top if top > 0 else shares).astype(np.float32)
        return Causes(log, np.zeros((len(items), len(history.before)), np.float32))
