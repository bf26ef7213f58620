"""How the fused score is weighed, by group of users, and what signals of items add to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from service.artifact.array_types import FloatArray, IntArray
from service.artifact.artifact import Artifact
from service.signals.item_values import ItemValues
from service.signals.ranker import Ranker

_NO_ITEMS: IntArray = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """Weights and signals of items, by group of users. Never changed, only replaced.

    An item that came after the export takes the signals of its stand-in, the exported item that it is most like.

    Attributes:
        weights: [G, 2] float32 weights of the path's log-probability and of the dense score.
        bias: [G, n] float32 what the signals of items add to the score of each exported item.
        new: [m] catalogue indices of the items that came after the export, ascending and larger than those before.
        stand_in: [m] the stand-in of each.
    """

    weights: FloatArray
    bias: FloatArray
    new: IntArray = field(default_factory=lambda: _NO_ITEMS)
    stand_in: IntArray = field(default_factory=lambda: _NO_ITEMS)

    @classmethod
    def of_artifact(cls, artifact: Artifact) -> Ranking:
        """Returns what the artefact was exported with."""
        ranker, groups = Ranker.of(artifact.signals, artifact.ranker), range(len(artifact.ranker.groups))
        weights = np.array([ranker.network(group) for group in groups], np.float32)
        return cls(weights, np.stack([ranker.bias(group) for group in groups]))

    def with_weights(self, weights: Sequence[tuple[float, float]], bias: FloatArray) -> Ranking:
        """Returns the ranking by other weights and bias [G, n]."""
        return replace(self, weights=np.array(weights, np.float32), bias=np.ascontiguousarray(bias, np.float32))

    def with_blend(self, blend: float) -> Ranking:
        """Returns the ranking in which all groups weigh the dense score by `blend`, and the path by the rest of 1."""
        return replace(self, weights=np.tile(np.array([1.0 - blend, blend], np.float32), (len(self.weights), 1)))

    def with_stand_ins(self, stand_in: Mapping[int, int]) -> Ranking:
        """Returns the ranking with these items that came after the export, and their stand-ins."""
        new = np.array(sorted(stand_in), np.int64)
        return replace(self, new=new, stand_in=np.array([stand_in[item] for item in new.tolist()], np.int64))

    def same_stand_ins(self, other: Ranking) -> bool:
        """Returns whether the new items and their stand-ins are those of another ranking."""
        return np.array_equal(self.new, other.new) and np.array_equal(self.stand_in, other.stand_in)

    def bias_of_rows(self, rows: int) -> FloatArray:
        """Returns the bias [G, rows] of all rows of an item table; rows that are no item have 0."""
        bias = np.zeros((len(self.bias), rows), np.float32)
        bias[:, : self.bias.shape[1]] = self.bias
        inside = self.new < rows
        bias[:, self.new[inside]] = self.bias[:, self.stand_in[inside]]
        return bias

    def bias_of(self, items: IntArray, group: int) -> FloatArray:
        """Returns the bias of items that came after the export; those without a stand-in have 0."""
        return ItemValues(self.new, self.bias[group].take(self.stand_in)).of(items)
