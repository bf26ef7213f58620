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

    def with_more(self, items: IntArray, log_probs: FloatArray, dense: FloatArray) -> Candidates:
        """Returns these candidates and others, whose signals all count."""
        return Candidates(
            np.concatenate([self.items, items]),
            np.concatenate([self.log_probs, log_probs]),
            np.concatenate([self.dense, dense]),
            np.concatenate([self.counted, np.ones(len(items), np.bool_)]),
        )
