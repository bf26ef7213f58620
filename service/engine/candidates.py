"""What a list of the model was chosen from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from service.artifact.array_types import BoolArray, FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class Candidates:
    """The items that a list was chosen from, in no particular order: those of the graph, and waiting ones on the list.

    Attributes:
        items: [c] int64 catalogue indices, unique.
        log_probs: [c] float32 log-probabilities of their token paths.
        dense: [c] float32 q · e.
        counted: [c] whether what the user's signals add to an item's score was added. It was not if the signals of so
            many other items are larger that a list takes no more into account.
    """

    items: IntArray
    log_probs: FloatArray
    dense: FloatArray
    counted: BoolArray

    def take(self, places: IntArray) -> Candidates:
        """Returns the candidates at these places."""
        return Candidates(self.items[places], self.log_probs[places], self.dense[places], self.counted[places])

    def with_more(self, more: Candidates) -> Candidates:
        """Returns these candidates and others."""
        return Candidates(
            np.concatenate([self.items, more.items]),
            np.concatenate([self.log_probs, more.log_probs]),
            np.concatenate([self.dense, more.dense]),
            np.concatenate([self.counted, more.counted]),
        )
