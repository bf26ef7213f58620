"""What is counted in a window, and how far two distributions are apart. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from service.artifact.array_types import Array, Float64Array, IntArray
from service.artifact.features import EVENT_TYPES
from service.watch.item_groups import BANDS, ItemGroups

LIST_CATEGORIES: Final = "list_categories"
LIST_POPULARITY: Final = "list_popularity"
LIST_REPEATS: Final = "list_repeats"
LIST_SCORES: Final = "list_scores"
VISITS: Final = "visits"
EVENT_TYPE: Final = "event_types"
EVENT_CATEGORIES: Final = "event_categories"
EVENT_POPULARITY: Final = "event_popularity"

OF_LISTS = (LIST_CATEGORIES, LIST_POPULARITY, LIST_REPEATS, LIST_SCORES)
OF_EVENTS = (EVENT_TYPE, EVENT_CATEGORIES, EVENT_POPULARITY)
STATISTICS = (*OF_LISTS, VISITS, *OF_EVENTS)

REPEATS = ("not_seen", "seen")
# Events in the history of a user who comes, from these numbers on.
_VISITS_FROM = (1, 5, 20)
NEW_USER = "0"
VISITED = (NEW_USER, "1-4", "5-19", "20+")
SCORE_BINS = 10
# Positions of a list whose scores count.
SCORED = 10


def bins_of(groups: ItemGroups) -> Mapping[str, tuple[str, ...]]:
    """Returns the names of the bins of each statistic."""
    return {
        LIST_CATEGORIES: groups.categories,
        LIST_POPULARITY: BANDS,
        LIST_REPEATS: REPEATS,
        LIST_SCORES: tuple(str(place) for place in range(1, SCORE_BINS + 1)),
        VISITS: VISITED,
        EVENT_TYPE: EVENT_TYPES,
        EVENT_CATEGORIES: groups.categories,
        EVENT_POPULARITY: BANDS,
    }


def visit_bin(events: IntArray | int) -> IntArray:
    """Returns the bin of `VISITED` of histories with so many events."""
    return np.searchsorted(_VISITS_FROM, events, side="right")


def softmax(scores: Float64Array) -> Float64Array:
    """Returns [n] the probabilities that scores [n] give, at least one."""
    weights = np.exp(scores - scores.max())
    probabilities: Float64Array = weights / weights.sum()
    return probabilities


def js_bits(p: Float64Array, q: Float64Array) -> Float64Array:
    """Returns the Jensen–Shannon divergence of distributions, in bits: 0 for equal ones, 1 for disjoint ones.

    Lin, Divergence measures based on the Shannon entropy, IEEE Trans. Inf. Theory 37 (1991). Unlike the population
    stability index it is finite where a bin is empty on one side.

    Args:
        p: [..., bins] shares that add up to 1.
        q: [..., bins] shares that add up to 1.
    """
    middle = (p + q) / 2.0
    divergence: Float64Array = np.maximum(0.0, entropy_bits(middle) - (entropy_bits(p) + entropy_bits(q)) / 2.0)
    return divergence


def entropy_bits(shares: Float64Array) -> Float64Array:
    """Returns [...] the Shannon entropy of distributions [..., bins], in bits."""
    logs = np.log2(shares, out=np.zeros_like(shares, np.float64), where=shares > 0)
    entropy: Float64Array = -(shares * logs).sum(axis=-1)
    return entropy


def effective(counts: Array) -> float:
    """Returns the effective number of subjects, (Σ m)² ÷ Σ m², of [subjects] counts m (Kish, Survey Sampling, 1965).

    A mean over all that they did varies as that of so many subjects who did equally much.
    """
    total = float(counts.sum())
    return total * total / float(np.square(counts, dtype=np.float64).sum()) if total else 0.0
