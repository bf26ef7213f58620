"""Repeat purchase: the user's own items again, the lately and often bought first.

The baseline of every log in which people buy the same things again; it needs numpy only, as the scorers of
`service.artifact.item_cf` do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from service.artifact.array_types import BoolArray, FloatArray, IntArray

_NOTHING: IntArray = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class Repeat:
    """`score(i) = Σ_j decay^age(j)` over the events j of item i in the history, the newest event at age 0.

    n_items: items of the catalogue; an event of any other scores nothing but keeps its age
    decay:   weight of an event relative to the one after it, in (0, 1]; 1 counts how often alone
    """

    n_items: int
    decay: float = 1.0

    def __post_init__(self) -> None:
        """Raises ValueError for a decay outside (0, 1]."""
        if not 0 < self.decay <= 1:
            raise ValueError("decay must be in (0, 1]")

    def recommend(
        self, history: IntArray, k: int, allowed: BoolArray | None = None, excluded: IntArray = _NOTHING
    ) -> tuple[IntArray, FloatArray]:
        """The best items of a history given oldest first: (items [≤ k], scores [≤ k] > 0), ties to the later bought.

        `allowed` is [items] bool (None: everything); no item of `excluded` is returned. `Popularity.fill` completes
        the list.
        """
        weight = self.decay ** np.arange(len(history) - 1, -1, -1, dtype=np.float64)
        known = (history >= 0) & (history < self.n_items)
        items, last, slot = _distinct(history[known])
        scores = np.bincount(slot, weight[known], minlength=len(items))
        keep = ~np.isin(items, excluded)
        if allowed is not None:
            keep &= allowed[items]
        order = np.lexsort((-last[keep], -scores[keep]))[: max(k, 0)]
        return items[keep][order], scores[keep][order].astype(np.float32)


def _distinct(items: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """The different items, the last place of each, and the row of every event's item among them."""
    found, first_from_the_end, slot = np.unique(items[::-1], return_index=True, return_inverse=True)
    return found.astype(np.int64), len(items) - 1 - first_from_the_end, slot[::-1]
