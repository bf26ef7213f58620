"""Whether lists in a new order earn more than lists by score, by more than chance.

The subjects of the log are in two halves. Lists of one half are put into the order that was learned from the other, and
judged by the off-policy estimates of `model.online`: the doubly robust estimate of the difference to the lists by score
has an interval that is clustered by subject, and the order is better if all of it is above 0. What is then kept was
learned from all subjects.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from model.online.logged_lists import LoggedList, Sample, read_sample
from model.online.off_policy import LEAST_EFFECTIVE, compare
from model.online.partitions import LogRange
from model.slate.impressions import Impressions
from model.slate.learning import Items, Learned, OrderError, OrderReward, learn, mean_dwell
from model.slate.logged_orders import HALVES, ByScore, InOrder, impressions_of
from service.ordering.ordering import Ordering

# The estimate that decides.
DECIDING = "dr"
Learner = Callable[[Impressions, Sequence[LoggedList], Items, OrderReward], Learned]


def by_expected_reward(seen: Impressions, _: Sequence[LoggedList], items: Items, reward: OrderReward) -> Learned:
    """Learns the order that is expected to earn most; see `learn`."""
    return learn(seen, items, reward)


@dataclass(frozen=True, slots=True)
class OrderSample:
    """The drawn lists of one model, with clicks and dwell.

    Attributes:
        sample: The lists, whose reward is clicks.
        dwell: The same lists with their dwell; empty where it does not count.
        other_models: Lists of other models, which were left out.
    """

    sample: Sample
    dwell: Sequence[LoggedList] = field(default_factory=list)
    other_models: int = 0


@dataclass(frozen=True, slots=True)
class Decision:
    """An order model, and whether it is better.

    Attributes:
        learned: What was learned from all subjects.
        report: The off-policy comparison with lists by score.
        better: Whether it earns more by more than chance.
    """

    learned: Learned
    report: dict[str, Any]
    better: bool


def read(
    span: LogRange, reward: OrderReward, models: Sequence[str], *, lists_max: int, made: bool = False
) -> OrderSample:
    """Reads the drawn lists of a model.

    Args:
        span: What part of the log.
        reward: What counts.
        models: Versions of the model: scores of other models are on another scale.
        lists_max: The most drawn lists.
        made: Whether traffic that looks made is in as well.

    Raises:
        LogError: The log cannot be read.
        OrderError: No drawn list is of the model.
    """
    sample = read_sample(span, "clicks", lists_max=lists_max, made=made)
    kept = [one for one in sample.lists if one.model_version in models]
    if not kept:
        found = Counter(one.model_version for one in sample.lists).most_common(3)
        others = ", ".join(f"{n:,} of {version}" for version, n in found) or "none at all"
        raise OrderError(
            f"the log has no drawn list of {models[0]} whose law is known; it has {others}",
            fix="let a share of the lists explore (policies: `explore`), and learn when they have come",
        )
    dwell: list[LoggedList] = []
    if reward != "clicks":
        by_id = {one.list_id: one for one in read_sample(span, "dwell", lists_max=lists_max, made=made).lists}
        dwell = [by_id[one.list_id] for one in kept]
    return OrderSample(replace(sample, lists=kept), dwell, len(sample.lists) - len(kept))


def decide(
    read: OrderSample,
    items: Items,
    reward: OrderReward = "clicks",
    *,
    first: int = 10,
    least_effective: float = LEAST_EFFECTIVE,
    learner: Learner = by_expected_reward,
) -> Decision:
    """Learns an order model, and decides whether it is better.

    Args:
        read: The drawn lists.
        items: What is known of the items.
        reward: What counts.
        first: How many items from the top are put into order.
        least_effective: Smallest effective number of subjects that an estimate may rest on.
        learner: How an order model is learned.

    Raises:
        OrderError: The lists do not say how far people look.
        LogError: The log cannot be judged.
    """
    seen = impressions_of(read.sample.lists, read.dwell or None)
    half = seen.subject % HALVES
    # Lists of each half are put into order by what was learned from the other.
    worth = _worth(read, seen, reward)
    sample = replace(read.sample, lists=worth)
    parts = [
        learner(seen.of(half != number), [worth[place] for place in np.flatnonzero(half != number)], items, reward)
        for number in range(HALVES)
    ]
    orderings = [Ordering(one.weights, first) for one in parts]
    learned = learner(seen, worth, items, reward)
    report = compare(sample, InOrder(orderings), ByScore(), least_effective=least_effective)
    low = report["lift"].get(DECIDING, {}).get("low")
    return Decision(learned, report, better=low is not None and low > 0)


def _worth(read: OrderSample, seen: Impressions, reward: OrderReward) -> list[LoggedList]:
    """The lists with what they earned: clicks, dwell over the mean dwell of a click, or the sum of both."""
    if reward == "clicks":
        return read.sample.lists
    mean = mean_dwell(seen)
    found = []
    for clicks, dwell in zip(read.sample.lists, read.dwell, strict=True):
        of_clicks = np.where(clicks.reward > 0, dwell.reward / mean, 0.0)
        found.append(replace(clicks, reward=of_clicks + (clicks.reward if reward == "both" else 0.0)))
    return found
