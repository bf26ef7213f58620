"""Computes the facts of a history that segment rules are about. Pure: the time is passed in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

# Entropy and repeats describe recent behaviour: they are computed over this many of the newest events.
FACT_WINDOW = 50


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts of a history that segment rules may be about.

    Attributes:
        events: Number of events kept in the history.
        recency_s: Seconds since the last event; None when there is no event or its time is unknown.
        category_entropy: Shannon entropy of the categories of the newest events, divided by its possible maximum: 0
            for a single category, 1 when no category occurs twice. Every event has weight 1, divided evenly among the
            categories (levels or tags) of its item. None with fewer than two events that have a category.
        repeat_share: Share of the newest events whose item occurs earlier among them; None without events.
    """

    events: int
    recency_s: float | None
    category_entropy: float | None
    repeat_share: float | None

    def at(self, last_event_ms: int | None, now_ms: int) -> Facts:
        """Returns the same facts at another time.

        Args:
            last_event_ms: Time of the last event, epoch milliseconds; None when unknown.
            now_ms: The other time, epoch milliseconds.
        """
        return Facts(self.events, _recency_s(last_event_ms, now_ms), self.category_entropy, self.repeat_share)


FACTS: tuple[str, ...] = tuple(field.name for field in fields(Facts))


def facts(
    item_ids: Sequence[str],
    categories: Sequence[Sequence[str]],
    last_event_ms: int | None,
    now_ms: int,
    n_categories: int,
) -> Facts:
    """Computes the facts of a history.

    Args:
        item_ids: [n] items of the whole history, oldest first.
        categories: Categories of each of the newest items (`FACT_WINDOW` of them are enough), oldest first; empty for
            an item without a known category.
        last_event_ms: Time of the last event, epoch milliseconds; None when unknown.
        now_ms: The present, epoch milliseconds.
        n_categories: Number of categories in the catalogue.
    """
    recent = item_ids[-FACT_WINDOW:]
    return Facts(
        events=len(item_ids),
        recency_s=_recency_s(last_event_ms, now_ms),
        category_entropy=_normalised_entropy(categories[-FACT_WINDOW:], n_categories),
        repeat_share=1.0 - len(set(recent)) / len(recent) if recent else None,
    )


def _recency_s(last_event_ms: int | None, now_ms: int) -> float | None:
    return None if last_event_ms is None else max(0.0, (now_ms - last_event_ms) / 1000.0)


def _normalised_entropy(categories: Sequence[Sequence[str]], n_categories: int) -> float | None:
    known = [of_item for of_item in categories if of_item]
    most = min(sum(map(len, known)), n_categories)
    if len(known) < 2 or most < 2:
        return None
    weight: dict[str, float] = {}
    for of_item in known:
        for category in of_item:
            weight[category] = weight.get(category, 0.0) + 1.0 / len(of_item)
    entropy = -sum(w / len(known) * math.log(w / len(known)) for w in weight.values())
    return min(1.0, max(0.0, entropy / math.log(most)))
