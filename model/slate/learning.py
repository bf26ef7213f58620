"""Learns an order model from drawn lists: looks, clicks given looks, and what a click is worth.

Looks follow from clicks that were corrected for what stands above (`position_bias`), and what stands above from clicks
given looks (`click_model`), so the two take turns. Looks rest on the randomness of the draw alone: a click model that
is wrong about what attracts clicks leaves them right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from model.errors import RunError
from model.slate.click_model import COLUMNS, ClickModel, Observed, fit
from model.slate.impressions import Impressions, alike_above, follows_above
from model.slate.position_bias import LEAST_CLICKS, PositionBias, position_bias
from service.artifact.array_types import Float64Array, FloatArray, IntArray
from service.artifact.items.catalogue import Catalogue
from service.artifact.scorers.order_weights import GROUPS_MAX, NO_GROUP, OrderWeights
from service.ordering.expected_reward import nearness

OrderReward = Literal["clicks", "dwell", "both"]
ORDER_REWARDS: tuple[OrderReward, ...] = get_args(OrderReward)
_ROUNDS = 3
# Clicks that the mean dwell counts for in the dwell of an item.
_DWELL_PRIOR = 5.0


class OrderError(RunError):
    """No order can be learned from these lists."""


@dataclass(frozen=True, slots=True, eq=False)
class Items:
    """What is known of the items of a catalogue.

    Attributes:
        group: [items] number of each item's group; `NO_GROUP` for none.
        names: Name of each group.
        follows: [groups, groups] the prior on orders; empty for none.
    """

    group: npt.NDArray[np.int32]
    names: Sequence[str] = ()
    follows: FloatArray = field(default_factory=lambda: np.zeros((0, 0), np.float32))

    @classmethod
    def of(cls, catalogue: Catalogue) -> Items:
        """Groups the exported items by their first category; the largest groups have a number."""
        first = [catalogue.category(index) or "" for index in range(catalogue.n_exported)]
        names, number, counts = np.unique(first, return_inverse=True, return_counts=True)
        kept = [place for place in np.argsort(-counts, kind="stable").tolist() if names[place]][:GROUPS_MAX]
        group = np.full(len(names), NO_GROUP, np.int32)
        group[kept] = np.arange(len(kept))
        return cls(group[number], tuple(str(names[place]) for place in kept))


@dataclass(frozen=True, slots=True, eq=False)
class Learned:
    """An order model, and what it rests on.

    Attributes:
        weights: The order model.
        bias: The looks, with their errors.
        clicks: The model of clicks.
        dwell: Mean dwell of a click; 0 where none is known.
        lists: Number of lists.
    """

    weights: OrderWeights
    bias: PositionBias
    clicks: ClickModel
    dwell: float
    lists: int


def learn(seen: Impressions, items: Items, reward: OrderReward = "clicks") -> Learned:
    """Learns the order model that is expected to earn most.

    Args:
        seen: Drawn lists.
        items: What is known of the items.
        reward: What counts: clicks, their dwell, or both.

    Raises:
        OrderError: The lists do not say how far people look.
    """
    observed, scale = observed_of(seen, items)
    model, bias = ClickModel.start(observed.items), position_bias(seen)
    _check(seen, bias)
    for _ in range(_ROUNDS):
        model = fit(observed, bias.examination, model)
        bias = position_bias(seen, model.factor(observed, bias.examination))
    value, dwell = values_of(seen, len(items.group), reward)
    columns = dict(zip(COLUMNS, model.weights.tolist(), strict=True))
    weights = OrderWeights(
        method="expected_reward",
        examination=bias.examination,
        leave=model.leave,
        scale=scale,
        weights={**columns, "item": 1.0},
        item=model.item[:-1].astype(np.float32),
        value=value,
        group=items.group,
        follows=items.follows,
    )
    return Learned(weights, bias, model, dwell, len(seen.subject))


def observed_of(seen: Impressions, items: Items, scale: Float64Array | None = None) -> tuple[Observed, Float64Array]:
    """Returns lists as the click model reads them, and [2] the mean and spread by which scores are standardised.

    Args:
        seen: Drawn lists.
        items: What is known of the items.
        scale: That mean and spread, where they are known.
    """
    n, shown = len(items.group), seen.shown
    if scale is None:
        scores = seen.score[shown]
        scale = np.array([scores.mean(), max(float(scores.std()), 1e-6)])
    known = shown & (seen.item < n)
    place = np.where(known, seen.item, n)  # items that came after the export share the last place
    group = np.where(known, np.append(items.group, NO_GROUP)[place], NO_GROUP).astype(np.int64)
    columns = np.stack(
        [
            np.ones(place.shape),
            np.where(shown, (seen.score - scale[0]) / scale[1], 0.0),
            alike_above(group, nearness(seen.positions)),
            follows_above(group, items.follows.astype(np.float64)),
        ],
        axis=2,
    )
    return Observed.of(seen, columns, place, n + 1), scale


def values_of(seen: Impressions, items: int, reward: OrderReward) -> tuple[FloatArray, float]:
    """Returns [items] the value of a click on each item, and the mean dwell of a click.

    A click counts 1, its dwell its share of the mean dwell; an item with few clicks is drawn towards the mean.

    Args:
        seen: Drawn lists.
        items: Number of items.
        reward: What counts.

    Raises:
        OrderError: Dwell is to count, and the log has none.
    """
    if reward == "clicks":
        return np.ones(items, np.float32), 0.0
    mean = mean_dwell(seen)
    clicked = seen.clicked & seen.shown & (seen.item < items)
    item, dwell = seen.item[clicked], seen.dwell[clicked]
    total = np.bincount(item, dwell, items) + _DWELL_PRIOR * mean
    relative = total / (np.bincount(item, minlength=items) + _DWELL_PRIOR) / mean
    return (relative + (1.0 if reward == "both" else 0.0)).astype(np.float32), mean


def mean_dwell(seen: Impressions) -> float:
    """Returns the mean dwell of a click.

    Raises:
        OrderError: The log has none.
    """
    dwell = seen.dwell[seen.clicked & seen.shown]
    if not dwell.sum() > 0:
        raise OrderError(
            "no clicked item of a drawn list has a dwell",
            fix="send `view` events with the dwell as their `value`, or learn from --reward clicks",
        )
    return float(dwell.mean())


def _check(seen: Impressions, bias: PositionBias) -> None:
    unknown: IntArray = np.flatnonzero(bias.clicks < LEAST_CLICKS)
    if len(unknown):
        raise OrderError(
            f"the {len(seen.subject):,} drawn lists have {bias.clicks[unknown[0]]:.0f} weighted clicks at position "
            f"{unknown[0] + 1}, on items that might have been elsewhere; looks can be told from {LEAST_CLICKS:.0f} on",
            fix="let a larger share of the lists explore, at a higher temperature, or wait for more of them",
        )
