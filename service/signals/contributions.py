"""Why an item is in a list: what each signal, and each event of the history, contributed to its score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from service.artifact.array_types import BoolArray, Float64Array, IntArray
from service.signals.ranker import Ranker
from service.signals.user_history import UserHistory


@dataclass(frozen=True, slots=True, eq=False)
class Contributions:
    """What each signal contributed to the scores of listed items: `w · (x(i) − the mean of x over the candidates)`.

    Over all signals they add up to an item's score less the candidates' mean score.

    Attributes:
        names: [f] the signals.
        values: [k, f] float64; 0 for an item that was no candidate.
        candidate: [k] whether an item was a candidate. The others only fill the list up.
    """

    names: tuple[str, ...]
    values: Float64Array
    candidate: BoolArray

    def of(self, names: frozenset[str]) -> Float64Array:
        """Returns [k] the sum over some signals."""
        chosen = [column for column, name in enumerate(self.names) if name in names]
        total: Float64Array = self.values[:, chosen].sum(axis=1)
        return total


def contributions(weighted: Mapping[str, Float64Array], candidates: IntArray, listed: IntArray) -> Contributions:
    """Compares the listed items with all candidates, signal by signal.

    Args:
        weighted: [c] values of the candidates times the weight, by signal.
        candidates: [c] the items that the list was chosen from, in any order.
        listed: [k] items of the list.
    """
    names = tuple(weighted)
    if not len(candidates):
        return Contributions(names, np.zeros((len(listed), len(names))), np.zeros(len(listed), np.bool_))
    values = np.stack([weighted[name] for name in names], axis=1)
    order = np.argsort(candidates, kind="stable")
    place = order[np.minimum(np.searchsorted(candidates, listed, sorter=order), len(order) - 1)]
    candidate = candidates[place] == listed
    return Contributions(names, (values[place] - values.mean(axis=0)) * candidate[:, None], candidate)


def weighted_values(
    ranker: Ranker, history: UserHistory, candidates: IntArray, group: int = 0, counted: BoolArray | None = None
) -> dict[str, Float64Array]:
    """Returns [c] the values of the candidates times the weight, for each signal but the network's that has one.

    Args:
        ranker: The signals and their weights.
        history: What is known of the user.
        candidates: [c] items.
        group: The group of users whose weights count.
        counted: [c] whether the user's signals counted for each candidate; None: they did for all.
    """
    weights = ranker.weights_of(group)
    found: dict[str, Float64Array] = {}
    for signal in ranker.user_signals:
        if weight := weights.get(signal.name):
            values = weight * ranker.signal(signal.name, history).of(candidates).astype(np.float64)
            found[signal.name] = values if counted is None else values * counted
    exported = ranker.exported(candidates)
    known = exported < ranker.n_items  # a new item like no other has no value
    for column in ranker.item_signals:
        if weight := weights.get(column.name):
            column_values = np.zeros(len(candidates))
            column_values[known] = column.values[exported[known]]
            found[column.name] = weight * column_values
    return found


@dataclass(frozen=True, slots=True)
class MainEvent:
    """The event that carried most of an item's value.

    Attributes:
        place: Its place in the log, or in the record of what was seen before it.
        in_log: Which of the two.
        signal: The signal through which it carried most.
        share: Its share of what all events contributed, 0 … 1; those that speak against the item are left out.
    """

    place: int
    in_log: bool
    signal: str
    share: float


def main_events(ranker: Ranker, history: UserHistory, items: IntArray, group: int = 0) -> list[MainEvent | None]:
    """Finds the event that carried most of each item's value, exactly, over all signals of the user.

    Args:
        ranker: The signals and their weights.
        history: What is known of the user.
        items: [k] items.
        group: The group of users whose weights count.

    Returns:
        One for each item; None if no event speaks for it.
    """
    weights = ranker.weights_of(group)
    names = [signal.name for signal in ranker.user_signals if weights.get(signal.name)]
    events = len(history) + len(history.before)
    if not names or not events:
        return [None] * len(items)
    parts = np.zeros((len(names), len(items), events))
    for row, name in enumerate(names):
        causes = ranker.causes(name, history, items)
        parts[row] = weights[name] * np.concatenate([causes.log, causes.before], axis=1)
    total = parts.sum(axis=0)
    main = total.argmax(axis=1)
    support = np.maximum(total, 0).sum(axis=1)
    found: list[MainEvent | None] = []
    for at, place in enumerate(main.tolist()):
        if total[at, place] <= 0:
            found.append(None)
            continue
        in_log = place < len(history)
        signal = names[int(parts[:, at, place].argmax())]
        share = float(total[at, place] / support[at])
        found.append(MainEvent(place if in_log else place - len(history), in_log, signal, share))
    return found
