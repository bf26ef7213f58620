"""The history that one request is answered from: the stored log, merged with the events in the request. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from service.artifact.features import is_history_event
from service.schemas.requests import InlineEvent
from service.store.records import StoredEvent

_MINUTE_MS = 60_000


@dataclass(frozen=True, slots=True)
class History:
    """Events as three columns of equal length, oldest first.

    Attributes:
        item_ids: Item of each event.
        types: Event type of each event.
        times_ms: Time of each event, in epoch milliseconds.
        stored: How many of the oldest events are exactly the stored log, in its order. It is 0 when an inline event
            belongs between stored ones: no stored state can be extended to such a history.
        user: Rows of the features that the request gave in place of the stored ones, as the encoder reads them; None:
            the stored ones count.
    """

    item_ids: list[str]
    types: list[str]
    times_ms: list[int]
    stored: int
    user: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.item_ids)

    @property
    def inline(self) -> bool:
        """Whether the request brought what no stored state has: events, or features that the encoder reads."""
        return len(self.item_ids) > self.stored or self.user is not None

    @property
    def last_ms(self) -> int | None:
        """Time of the newest event in epoch milliseconds, None for an empty history."""
        return self.times_ms[-1] if self.times_ms else None


def merge_events(stored: Sequence[StoredEvent], inline: Sequence[InlineEvent], now_ms: int) -> History:
    """Merges the inline events of a request into the stored log by time.

    Inline copies of stored events are dropped, and so are inline events that would not join the stored log either.

    Args:
        stored: The log, oldest first.
        inline: The events of the request, in any order. An event without a timestamp happened in this minute: its exact
            moment would change the list from one request to the next.
        now_ms: The time of the request, in epoch milliseconds.
    """
    item_ids = [event.item_id for event in stored]
    types = [event.type for event in stored]
    times = [event.time_ms for event in stored]
    inline = [event for event in inline if is_history_event(event.type, event.item_id)]
    if not inline:
        return History(item_ids, types, times, len(stored))
    undated_ms = _undated_ms(times, inline, now_ms)
    known = set(zip(times, item_ids, types, strict=True))
    fresh: list[tuple[int, str, str]] = []
    for event in sorted(inline, key=_is_undated):  # of events of one moment, those without a timestamp are the newest
        key = (undated_ms if event.timestamp is None else event.timestamp, event.item_id, event.type)
        if key not in known:
            known.add(key)
            fresh.append(key)
    fresh.sort(key=_time)
    if not stored or not fresh or fresh[0][0] >= times[-1]:
        return History(
            item_ids + [item for _, item, _ in fresh],
            types + [kind for _, _, kind in fresh],
            times + [time for time, _, _ in fresh],
            len(stored),
        )
    merged = sorted([*zip(times, item_ids, types, strict=True), *fresh], key=_time)
    return History([i for _, i, _ in merged], [t for _, _, t in merged], [m for m, _, _ in merged], 0)


def _undated_ms(times_ms: Sequence[int], inline: Sequence[InlineEvent], now_ms: int) -> int:
    """The time of events without a timestamp: the start of the minute, but after everything that happened before."""
    dated = (event.timestamp for event in inline if event.timestamp is not None)
    past = [time for time in (*times_ms[-1:], *dated) if time <= now_ms]
    return max(now_ms - now_ms % _MINUTE_MS, *past) if past else now_ms - now_ms % _MINUTE_MS


def _is_undated(event: InlineEvent) -> bool:
    return event.timestamp is None


def _time(event: tuple[int, str, str]) -> int:
    return event[0]
