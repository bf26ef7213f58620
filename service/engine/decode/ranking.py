"""How the fused score is weighed, by group of users, and what signals of items add to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from service.artifact.array_types import FloatArray, IntArray
from service.artifact.artifact import Artifact
from service.signals.item_values import ItemValues
from service.signals.ranker import Ranker
from service.signals.stand_ins import StandIns


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """Weights and signals of items, by group of users. Never changed, only replaced.

    An item that came after the export takes the signals of its stand-in, the exported item that it is most like.

    Attributes:
        weights: [G, 2] float32 weights of the path's log-probability and of the dense score.
        bias: [G, n] float32 what the signals of items add to the score of each exported item.
        stand_ins: The items that came after the export, and the stand-in of each.
    """

    weights: FloatArray
    bias: FloatArray
    stand_ins: StandIns = field(default_factory=lambda: StandIns.of({}))

    @classmethod
    def of_artifact(cls, artifact: Artifact) -> Ranking:
        """Returns what the artefact was exported with."""
        ranker, groups = Ranker.of(artifact.signals, artifact.ranker), range(len(artifact.ranker.groups))
        weights = np.array([ranker.network(group) for group in groups], np.float32)
        return cls(weights, np.stack([ranker.bias(group) for group in groups]))

    def with_weights(self, weights: Sequence[tuple[float, float]], bias: FloatArray) -> Ranking:
        """Returns the ranking by other weights and bias [G, n]."""
        return replace(self, weights=np.array(weights, np.float32), bias=np.ascontiguousarray(bias, np.float32))

    def with_stand_ins(self, stand_in: Mapping[int, int]) -> Ranking:
        """Returns the ranking with these items that came after the export, and their stand-ins."""
        return replace(self, stand_ins=StandIns.of(stand_in))

    def same_stand_ins(self, other: Ranking) -> bool:
        """Returns whether the new items and their stand-ins are those of another ranking."""
        ours, theirs = self.stand_ins, other.stand_ins
        return np.array_equal(ours.new, theirs.new) and np.array_equal(ours.like, theirs.like)

    def bias_of_rows(self, rows: int) -> FloatArray:
        """Returns the bias [G, rows] of all rows of an item table; rows that are no item have 0."""
        bias = np.zeros((len(self.bias), rows), np.float32)
        bias[:, : self.bias.shape[1]] = self.bias
        new, like = self.stand_ins.new, self.stand_ins.like
        inside = new < rows
        bias[:, new[inside]] = self.bias[:, like[inside]]
        return bias

    def bias_of_any(self, items: IntArray, group: int) -> FloatArray:
        """Returns the bias of items, exported or not; those without a stand-in have 0."""
        exported = items < self.bias.shape[1]
        values = self.bias_of(items, group)
        values[exported] = self.bias[group].take(items[exported])
        return values

    def bias_of(self, items: IntArray, group: int) -> FloatArray:
        """Returns the bias of items that came after the export; those without a stand-in have 0."""
        return ItemValues(self.stand_ins.new, self.bias[group].take(self.stand_ins.like)).of(items)
