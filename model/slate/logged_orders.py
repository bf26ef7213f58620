"""The drawn lists of a log as impressions, and lists in a new order as a policy that the log can judge."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from model.online.logged_lists import ItemNumbers, LoggedList, law_of
from model.online.marginals import Law, all_marginals
from model.online.targets import Drawn
from model.slate.impressions import Impressions
from service.artifact.array_types import Float64Array, IntArray
from service.ordering.ordering import Ordering

# Lists whose marginals are computed together.
_BATCH = 256
# Subjects are in two halves: lists of one are put into order by what was learned from the other.
HALVES = 2


def impressions_of(lists: Sequence[LoggedList], dwell: Sequence[LoggedList] | None = None) -> Impressions:
    """Returns drawn lists as arrays.

    Args:
        lists: Drawn lists, whose reward is clicks.
        dwell: The same lists with their dwell as reward; None where dwell does not count.
    """
    n, k = len(lists), max((len(one.shown) for one in lists), default=1)
    item, score = np.full((n, k), -1, np.int64), np.zeros((n, k))
    clicked, dwelt, chance = np.zeros((n, k), bool), np.zeros((n, k)), np.zeros((n, k, k))
    by_length: dict[int, list[int]] = defaultdict(list)
    for place, one in enumerate(lists):
        drawn = len(one.shown)
        by_length[drawn].append(place)
        item[place, :drawn] = one.candidates[one.shown]
        score[place, :drawn] = one.scores[one.shown]
        clicked[place, :drawn] = one.reward[:drawn] > 0
        if dwell is not None:
            dwelt[place, :drawn] = dwell[place].reward[:drawn]
    for drawn, places in by_length.items():
        for start in range(0, len(places), _BATCH):
            batch = places[start : start + _BATCH]
            some = [lists[place] for place in batch]
            found = all_marginals(
                [one.scores for one in some], [law_of(one.decoding) for one in some], drawn, [one.shown for one in some]
            )
            for place, one, marginals in zip(batch, some, found, strict=True):
                chance[place, :drawn, :drawn] = marginals[one.shown]
    owner = np.fromiter((one.owner for one in lists), np.int64, n)
    return Impressions(owner, item, score, clicked, dwelt, chance)


class ByScore:
    """The best by score: what is listed without an order model.

    Attributes:
        name: What it is called.
        own_model: True: no list of the log is its own, so that both policies are judged by the same lists.
    """

    name, own_model = "by score", True

    def decoding(self, segment: str) -> None:
        """Returns None: it has no decoding of its own."""

    def of(self, lists: Sequence[LoggedList], numbers: ItemNumbers) -> list[Drawn | None]:
        """Returns what each list would be."""
        return [
            Drawn(self._scores(one), Law(sampled=False), numbers.of_candidates(one), one.shown, True) for one in lists
        ]

    def _scores(self, one: LoggedList) -> Float64Array:
        return np.asarray(one.scores, np.float64)


class InOrder(ByScore):
    """The best by score, the first of them put into order by what was learned from other subjects.

    Args:
        orderings: The ordering for each half of the subjects.
    """

    name = "in order"

    def __init__(self, orderings: Sequence[Ordering]) -> None:
        self._orderings = orderings

    def _scores(self, one: LoggedList) -> Float64Array:
        scores = super()._scores(one)
        best = np.argsort(-scores, kind="stable")[: len(one.shown)]
        ordering = self._orderings[one.owner % HALVES]
        order = best[ordering.order(one.candidates[best], np.asarray(scores[best], np.float32))]
        return in_this_order(scores, order)


def in_this_order(scores: Float64Array, order: IntArray) -> Float64Array:
    """Returns scores [n] by which these candidates come first, in this order, with the largest values of before.

    Args:
        scores: [n] scores of the candidates.
        order: [m] places of the candidates that come first.
    """
    found = scores.copy()
    descending = np.sort(scores[order])[::-1]
    # Equal scores are told apart by a step that no law sees.
    found[order] = descending + 1e-9 * np.arange(len(order), 0, -1)
    return found
