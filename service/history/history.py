"""The history that one request is answered from: the stored log, merged with the events in the request. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from service.artifact.features import is_history_event
from service.schemas.recommend_request import InlineEvent
from service.store.records import StoredEvent

SEARCH = "search"
_MINUTE_MS = 60_000


class Search(NamedTuple):
    """A search without an item: its time in epoch milliseconds, and its text."""

    time_ms: int
    query: str


class SearchedHistory(NamedTuple):
    """A history with its searches, as columns of equal length, oldest first.

    Attributes:
        item_ids: Item of each event, "" for a search.
        types: Event type of each event.
        times_ms: Time of each event, in epoch milliseconds.
        queries: Text of each search, None for the events of items.
        places: Place of each event among the events of items; −1 for a search.
    """

    item_ids: list[str]
    types: list[str]
    times_ms: list[int]
    queries: list[str | None]
    places: list[int]


@dataclass(frozen=True, slots=True)
class History:
    """Events as three columns of equal length, oldest first.

    Attributes:
        item_ids: Item of each event.
        types: Event type of each event.
        times_ms: Time of each event, in epoch milliseconds.
        stored: How many of the oldest events are exactly the events of items of the stored log, in its order. It is 0
            when an inline event belongs between stored ones: no stored state can be extended to such a history.
        searches: The searches without an item, oldest first. Only models that read queries see them: lists, signals,
            segments and all else know the events of items alone.
        sessions: Mark of the session of each event, "" where unknown; empty where no event has one. Events of a request
            have none.
        user: Rows of the features that the request gave in place of the stored ones, as the encoder reads them; None:
            the stored ones count.
    """

    item_ids: list[str]
    types: list[str]
    times_ms: list[int]
    stored: int
    searches: tuple[Search, ...] = ()
    user: tuple[int, ...] | None = None
    sessions: tuple[str, ...] = ()

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


def with_searches(history: History) -> SearchedHistory:
    """Returns a history with its searches among the events; of one moment, the searches come first, as in training."""
    found: list[tuple[int, str, str, str | None, int]]
    found = [(search.time_ms, "", SEARCH, search.query, -1) for search in history.searches]
    columns = zip(history.times_ms, history.item_ids, history.types, strict=True)
    found += [(time_ms, item, kind, None, place) for place, (time_ms, item, kind) in enumerate(columns)]
    found.sort(key=_moment)  # stable
    return SearchedHistory(
        [item for _, item, _, _, _ in found],
        [kind for _, _, kind, _, _ in found],
        [time_ms for time_ms, _, _, _, _ in found],
        [query for _, _, _, query, _ in found],
        [place for _, _, _, _, place in found],
    )


def merge_events(stored: Sequence[StoredEvent], inline: Sequence[InlineEvent], now_ms: int) -> History:
    """Merges the inline events of a request into the stored log by time.

    Inline copies of stored events are dropped, and so are inline events that would not join the stored log either.

    Args:
        stored: The log, oldest first.
        inline: The events of the request, in any order. An event without a timestamp happened in this minute: its exact
            moment would change the list from one request to the next.
        now_ms: The time of the request, in epoch milliseconds.
    """
    searches: tuple[Search, ...] = ()
    item_ids = [event.item_id for event in stored]
    if "" in item_ids:
        searches = tuple(Search(event.time_ms, event.query) for event in stored if not event.item_id)
        stored = [event for event in stored if event.item_id]
        item_ids = [event.item_id for event in stored]
    types = [event.type for event in stored]
    times = [event.time_ms for event in stored]
    sessions = tuple(event.session for event in stored)
    marked = any(sessions)
    inline = [event for event in inline if is_history_event(event.type, event.item_id)]
    if not inline:
        return History(item_ids, types, times, len(stored), searches, sessions=sessions if marked else ())
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
            searches,
            sessions=(*sessions, *("" for _ in fresh)) if marked else (),
        )
    merged = sorted([*zip(times, item_ids, types, sessions, strict=True), *((*one, "") for one in fresh)], key=_when)
    return History(
        [item for _, item, _, _ in merged],
        [kind for _, _, kind, _ in merged],
        [time for time, _, _, _ in merged],
        0,
        searches,
        sessions=tuple(session for _, _, _, session in merged) if marked else (),
    )


def _undated_ms(times_ms: Sequence[int], inline: Sequence[InlineEvent], now_ms: int) -> int:
    """The time of events without a timestamp: the start of the minute, but after everything that happened before."""
    dated = (event.timestamp for event in inline if event.timestamp is not None)
    past = [time for time in (*times_ms[-1:], *dated) if time <= now_ms]
    return max(now_ms - now_ms % _MINUTE_MS, *past) if past else now_ms - now_ms % _MINUTE_MS


def _is_undated(event: InlineEvent) -> bool:
    return event.timestamp is None


def _time(event: tuple[int, str, str]) -> int:
    return event[0]


def _when(event: tuple[int, str, str, str]) -> int:
    return event[0]


def _moment(event: tuple[int, str, str, str | None, int]) -> int:
    return event[0]
