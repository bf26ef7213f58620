"""The ranker: one score of every signal.

`s(i) = w_path · log p(path_i) + w_dense · (q · e_i + offset) + Σ_f w_f · x_f(i)`. The network's part is computed in the
graph; this module gives the weights, and the sum over all other signals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

from service.artifact.array_types import FloatArray
from service.signals.interface import ItemSignal, UserSignal
from service.signals.item_values import ItemValues, weighted_sum
from service.signals.user_history import UserHistory

Weights = Mapping[str, float]
PATH, DENSE = "path", "dense"
DEFAULT_GROUP = "default"


@dataclass(frozen=True, slots=True, eq=False)
class Ranker:
    """Signals, and their weights for each group of users.

    Attributes:
        n_items: Number of exported items.
        user_signals: Signals that depend on the user.
        item_signals: Signals that are the same for everybody.
        groups: Weight of each signal, `path` and `dense` among them, by group of users. The first is `default`. A
            signal without a weight has the weight 0.
        fallback: Weight of each signal where the network does not answer.
    """

    n_items: int
    user_signals: Sequence[UserSignal]
    item_signals: Sequence[ItemSignal]
    groups: Mapping[str, Weights]
    fallback: Weights = field(default_factory=lambda: {"item_cf": 1.0})

    def __post_init__(self) -> None:
        """Raises ValueError for weights of unknown signals, or without a default group."""
        if next(iter(self.groups), None) != DEFAULT_GROUP:
            raise ValueError(
                f"the first group of weights must be {DEFAULT_GROUP!r}, not {next(iter(self.groups), None)!r}"
            )
        names = {PATH, DENSE, *(s.name for s in self.user_signals), *(s.name for s in self.item_signals)}
        unknown = {name for weights in self.groups.values() for name in weights} - names
        if unknown:
            raise ValueError(f"there are weights of {', '.join(sorted(unknown))}, but no such signals")

    @classmethod
    def of_blend(
        cls,
        n_items: int,
        user_signals: Sequence[UserSignal],
        item_signals: Sequence[ItemSignal],
        blend: float,
    ) -> Self:
        """Returns the ranker that nothing was learned for: path and dense score by the blend, no other signal."""
        return cls(n_items, user_signals, item_signals, {DEFAULT_GROUP: {PATH: 1 - blend, DENSE: blend}})

    def group(self, segment: str) -> int:
        """Returns the number of a segment's group of weights; 0, the default, if it has none of its own."""
        names = list(self.groups)
        return names.index(segment) if segment in self.groups else 0

    def weights(self, group: int = 0) -> Weights:
        """Returns the weights of a group."""
        return list(self.groups.values())[group]

    def network(self, group: int = 0) -> tuple[float, float]:
        """Returns the weights of the path's log-probability and of the dense score."""
        weights = self.weights(group)
        return weights.get(PATH, 0.0), weights.get(DENSE, 0.0)

    def user(self, history: UserHistory, group: int = 0) -> ItemValues:
        """Returns Σ w_f · x_f of the user's signals. Signals of weight 0 are not computed."""
        weights = self.weights(group)
        used = [(weights[s.name], s) for s in self.user_signals if weights.get(s.name)]
        return weighted_sum(((weight, signal.values(history)) for weight, signal in used), self.n_items)

    def bias(self, group: int = 0) -> FloatArray:
        """Returns the [n_items] float32 sum Σ w_f · x_f of the item signals."""
        weights = self.weights(group)
        total = np.zeros(self.n_items, np.float64)
        for signal in self.item_signals:
            if weight := weights.get(signal.name):
                total += weight * signal.values
        return total.astype(np.float32)

    def without_network(self) -> Ranker:
        """Returns the ranker of the rung below the model: its weights give the network none."""
        return replace(self, groups={DEFAULT_GROUP: {PATH: 0.0, DENSE: 0.0, **self.fallback}})
