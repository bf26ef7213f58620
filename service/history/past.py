"""A subject's past for one request: what is stored, and what the request brought along. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from service.schemas.requests import InlineEvent
from service.store.records import StoredEvent


@dataclass(frozen=True, slots=True)
class Past:
    """Events oldest first, as three lists of one length.

    stored: how many of them, counted from the oldest, are exactly the stored log in its order. Inline events
        that belong between stored ones make it 0: no stored state is a base for such a past.
    """

    item_ids: list[str]
    types: list[str]
    times_ms: list[int]
    stored: int

    def __len__(self) -> int:
        return len(self.item_ids)

    @property
    def inline(self) -> bool:
        return len(self.item_ids) > self.stored

    @property
    def last_ms(self) -> int | None:
        return self.times_ms[-1] if self.times_ms else None


def past(stored: Sequence[StoredEvent], inline: Sequence[InlineEvent], now_ms: int) -> Past:
    """The stored log with the inline events put in by time, an inline copy of a stored event left out.

    An inline event without a time happened now.
    """
    item_ids = [event.item_id for event in stored]
    types = [event.type for event in stored]
    times = [event.time_ms for event in stored]
    if not inline:
        return Past(item_ids, types, times, len(stored))
    known = set(zip(times, item_ids, types, strict=True))
    fresh: list[tuple[int, str, str]] = []
    for event in inline:
        key = (now_ms if event.timestamp is None else event.timestamp, event.item_id, event.type)
        if key not in known:
            known.add(key)
            fresh.append(key)
    fresh.sort(key=_time)
    if not stored or not fresh or fresh[0][0] >= times[-1]:
        return Past(
            item_ids + [item for _, item, _ in fresh],
            types + [kind for _, _, kind in fresh],
            times + [time for time, _, _ in fresh],
            len(stored),
        )
    merged = sorted([*zip(times, item_ids, types, strict=True), *fresh], key=_time)
    return Past([i for _, i, _ in merged], [t for _, _, t in merged], [m for m, _, _ in merged], 0)


def _time(event: tuple[int, str, str]) -> int:
    return event[0]
