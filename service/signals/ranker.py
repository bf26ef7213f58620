"""The ranker: one score of every signal.

`s(i) = w_path · log p(path_i) + w_dense · (q · e_i + offset) + Σ_f w_f · x_f(i)`. The network's part is computed in the
graph; this module gives the weights, and the sum over all other signals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

from service.artifact.array_types import FloatArray, IntArray
from service.artifact.scorers.item_column import ItemColumn
from service.artifact.scorers.neighbour_table import NeighbourTable
from service.artifact.scorers.own_items import OwnItems
from service.artifact.scorers.popularity import Popularity
from service.artifact.scorers.ranker_weights import DEFAULT_GROUP, DENSE, PATH, RankerWeights, Weights
from service.artifact.scorers.signal_files import SignalPart
from service.signals.interface import Causes, ItemSignal, UserSignal
from service.signals.item_signals import ColumnSignal
from service.signals.item_values import ItemValues, weighted_sum
from service.signals.neighbours import NeighbourSignal
from service.signals.own_items import OwnItemsSignal
from service.signals.stand_ins import StandIns
from service.signals.user_history import UserHistory


@dataclass(frozen=True, slots=True, eq=False)
class Ranker:
    """Signals, and their weights for each group of users.

    Attributes:
        n_items: Number of exported items.
        user_signals: Signals that depend on the user.
        item_signals: Signals that are the same for everybody.
        weights: The weights.
        stand_ins: Items that came after the export; None if there are none.
    """

    n_items: int
    user_signals: Sequence[UserSignal]
    item_signals: Sequence[ItemSignal]
    weights: RankerWeights
    stand_ins: StandIns | None = field(default=None)
    _used: dict[int, tuple[str, ...]] = field(default_factory=dict, init=False, repr=False)
    _of_user: dict[int, bool] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(cls, parts: Mapping[str, SignalPart], weights: RankerWeights) -> Self:
        """Makes the signals of what an artefact holds of them.

        Args:
            parts: What each signal was fitted to, by name; at least one.
            weights: The weights of these signals.
        """
        user: list[UserSignal] = []
        item: list[ItemSignal] = []
        for name, part in parts.items():
            match part:
                case NeighbourTable():
                    user.append(NeighbourSignal(name, part))
                case OwnItems():
                    user.append(OwnItemsSignal(name, part))
                case ItemColumn():
                    item.append(ColumnSignal(name, part.values))
                case Popularity():
                    item.append(ColumnSignal(name, part.log_counts()))
        return cls(next(iter(parts.values())).n_items, user, item, weights)

    def over(self, stand_in: Mapping[int, int]) -> Ranker:
        """Returns the same ranker over a catalogue with new items.

        Args:
            stand_in: The exported item that each new item is most like, by catalogue index.
        """
        return replace(self, stand_ins=StandIns.of(stand_in) if stand_in else None)

    def group(self, segment: str) -> int:
        """Returns the number of a segment's group of weights; 0, the default, if it has none of its own."""
        groups = self.weights.groups
        return list(groups).index(segment) if segment in groups else 0

    def weights_of(self, group: int = 0) -> Weights:
        """Returns the weights of a group."""
        return list(self.weights.groups.values())[group]

    def used(self, group: int = 0) -> tuple[str, ...]:
        """Returns the names of the signals that count, those of the network first."""
        known = self._used.get(group)
        if known is None:
            weights = self.weights_of(group)
            names = (PATH, DENSE, *(s.name for s in self.user_signals), *(s.name for s in self.item_signals))
            known = self._used[group] = tuple(name for name in names if weights.get(name))
        return known

    def network(self, group: int = 0) -> tuple[float, float]:
        """Returns the weights of the path's log-probability and of the dense score."""
        weights = self.weights_of(group)
        return weights.get(PATH, 0.0), weights.get(DENSE, 0.0)

    def uses_history(self, group: int = 0) -> bool:
        """Returns whether any signal of the user has a weight."""
        known = self._of_user.get(group)
        if known is None:
            weights = self.weights_of(group)
            known = self._of_user[group] = any(weights.get(signal.name) for signal in self.user_signals)
        return known

    def user(self, history: UserHistory, group: int = 0) -> ItemValues:
        """Returns Σ w_f · x_f of the user's signals. Signals of weight 0 are not computed.

        Events of a new item count as events of the item that it is most like, and a new item has the value of that one.
        """
        weights = self.weights_of(group)
        used = [(weights[signal.name], signal) for signal in self.user_signals if weights.get(signal.name)]
        seen = self._exported(history) if used else history
        total = weighted_sum([(weight, signal.values(seen)) for weight, signal in used], self.n_items)
        return total if self.stand_ins is None else self.stand_ins.values(total)

    def signal(self, name: str, history: UserHistory) -> ItemValues:
        """Returns the values of one of the user's signals, without a weight; new items have theirs as in `user`.

        Raises:
            KeyError: There is no such signal.
        """
        values = self._named(name).values(self._exported(history))
        return values if self.stand_ins is None else self.stand_ins.values(values)

    def causes(self, name: str, history: UserHistory, items: IntArray) -> Causes:
        """Returns what each event of a history contributed to items' values of one signal, without a weight.

        Raises:
            KeyError: There is no such signal.
        """
        return self._named(name).causes(self._exported(history), self.exported(items))

    def exported(self, items: IntArray) -> IntArray:
        """Returns the exported items [n] whose signals count for the items: for a new one its stand-in."""
        return items if self.stand_ins is None else self.stand_ins.exported(items)

    def bias(self, group: int = 0) -> FloatArray:
        """Returns the [n_items] float32 sum Σ w_f · x_f of the item signals. A new item has that of its stand-in."""
        weights = self.weights_of(group)
        total = np.zeros(self.n_items, np.float64)
        for signal in self.item_signals:
            if weight := weights.get(signal.name):
                total += weight * signal.values
        return total.astype(np.float32)

    def without_network(self) -> Ranker:
        """Returns the ranker of the rung below the model: its weights give the network none."""
        return replace(self, weights=replace(self.weights, groups={DEFAULT_GROUP: self.weights.without_network}))

    def _named(self, name: str) -> UserSignal:
        for signal in self.user_signals:
            if signal.name == name:
                return signal
        raise KeyError(name)

    def _exported(self, history: UserHistory) -> UserHistory:
        return history if self.stand_ins is None else self.stand_ins.history(history)
