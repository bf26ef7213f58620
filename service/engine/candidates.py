"""What a list of the model was chosen from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from service.artifact.array_types import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class Candidates:
    """The items that a list was chosen from, in no particular order: those of the graph, and waiting ones on the list.

    Attributes:
        items: [c] int64 catalogue indices, unique.
        log_probs: [c] float32 log-probabilities of their token paths.
        dense: [c] float32 q · e.
    """

    items: IntArray
    log_probs: FloatArray
    dense: FloatArray

    def with_more(self, items: IntArray, log_probs: FloatArray, dense: FloatArray) -> Candidates:
        """Returns these candidates and others."""
        return Candidates(
            np.concatenate([self.items, items]),
            np.concatenate([self.log_probs, log_probs]),
            np.concatenate([self.dense, dense]),
        )
