"""Cheap facts of a history, which the rules of `policies` ask about. Pure: the time is passed in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

# Facts describe what a user does lately: only this many of the newest events count for entropy and repeats.
FACT_WINDOW = 50


@dataclass(frozen=True, slots=True)
class Facts:
    """What segment rules may ask about.

    events: number of events kept in the history.
    recency_s: seconds since the last event; None where there is none or times are unknown.
    category_entropy: Shannon entropy of the categories of the newest events, divided by the largest it could
        be: 0 is one category only, 1 is never the same twice. An event counts once, shared out evenly among all the
        categories (levels or tags) of its item. None below two events with a category.
    repeat_share: share of the newest events whose item had occurred before among them.
    """

    events: int
    recency_s: float | None
    category_entropy: float | None
    repeat_share: float | None

    def at(self, last_event_ms: int | None, now_ms: int) -> Facts:
        """The same facts at another time."""
        return Facts(self.events, _recency_s(last_event_ms, now_ms), self.category_entropy, self.repeat_share)


FACTS: tuple[str, ...] = tuple(field.name for field in fields(Facts))


def facts(
    item_ids: Sequence[str],
    categories: Sequence[Sequence[str]],
    last_event_ms: int | None,
    now_ms: int,
    n_categories: int,
) -> Facts:
    """Facts of a history given oldest first.

    Args:
        item_ids: [n] items of the whole history.
        categories: the categories of each of the newest items (`FACT_WINDOW` are enough), none where unknown.
        n_categories: categories in the catalogue.
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
