"""Histories as they were when a list was made, from the events of the log."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass

import polars as pl

from service.artifact.features import is_history_event


@dataclass(frozen=True, slots=True)
class RebuiltHistory:
    """Events as three columns of equal length, oldest first.

    Attributes:
        item_ids: Item of each event.
        types: Type of each event.
        times_ms: Time of each event, Unix milliseconds.
    """

    item_ids: tuple[str, ...]
    types: tuple[str, ...]
    times_ms: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Event:
    """An event, from when on it was in a history, and until when: a merge moves it to another subject."""

    since_ms: int
    until_ms: int | None
    time_ms: int
    item_id: str
    type: str


class Histories:
    """The histories of some subjects at any time."""

    def __init__(self, outcomes: pl.DataFrame) -> None:
        """Takes the outcomes of `Attributed`, which hold all events of their subjects, each once."""
        self._events: dict[str, list[_Event]] = defaultdict(list)
        columns = ("subject", "owner", "merged_ms", "received_ms", "time_ms", "item_id", "type")
        for subject, owner, merged_ms, received_ms, time_ms, item_id, kind in outcomes.select(columns).iter_rows():
            if not is_history_event(kind, item_id):
                continue
            self._events[subject].append(_Event(received_ms, merged_ms, time_ms, item_id, kind))
            if merged_ms is not None and owner != subject:
                self._events[owner].append(_Event(merged_ms, None, time_ms, item_id, kind))
        for events in self._events.values():
            events.sort(key=_since)

    def before(self, subject: str, time_ms: int) -> RebuiltHistory:
        """Returns the history of a subject at a time: the events received by then, in the order of their own times.

        Args:
            subject: The subject that the list was made for.
            time_ms: When the list was made, Unix milliseconds.
        """
        events = self._events.get(subject, [])
        known = events[: bisect_right(events, time_ms, key=_since)]
        kept = [one for one in known if one.until_ms is None or one.until_ms > time_ms]
        kept.sort(key=_time)
        return RebuiltHistory(
            tuple(one.item_id for one in kept), tuple(one.type for one in kept), tuple(one.time_ms for one in kept)
        )


def _since(event: _Event) -> int:
    return event.since_ms


def _time(event: _Event) -> int:
    return event.time_ms
