"""The version of a log: a hash chain over its events in the order they arrived.

    version = first 64 bits of sha1(previous version, event)

A counter would repeat after a lost second of writes or an erasure; a chain cannot. An encoder state that
carries the version it was made at is still a valid base exactly when hashing the events after its last one
onto that version gives the log's version: a late event, an erasure or a restored backup breaks the equality.

`lua_scripts.APPEND` computes the same chain inside Redis; the tests compare the two.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterable

from service.store.records import ARRIVALS, SEPARATOR, StoredEvent, UserRecord

VERSION_LENGTH = 16


def link(version: str, event: StoredEvent) -> str:
    """The version after `event` was appended to a log of this `version` ("" for an empty log)."""
    arrival = int((event.score - event.time_ms) * ARRIVALS)
    parts = (version, str(event.time_ms), str(arrival), event.event_id, event.item_id, event.type)
    # sha1 because it is what every Redis has inside Lua; nothing here resists an adversary.
    digest = hashlib.sha1(SEPARATOR.join(parts).encode(), usedforsecurity=False)
    return digest.hexdigest()[:VERSION_LENGTH]


def chain(version: str, events: Iterable[StoredEvent]) -> str:
    """The version after appending `events` in the given order."""
    for event in events:
        version = link(version, event)
    return version


def tail(record: UserRecord, version: str, last_score: float) -> tuple[StoredEvent, ...] | None:
    """The events to add to a state that was made at `version` with `last_score` as its newest event.

    None when that state is no base for this log any more; an empty tuple when it is up to date.
    """
    start = bisect_right(record.events, last_score, key=_score)
    events = record.events[start:]
    return events if chain(version, events) == record.version else None


def _score(event: StoredEvent) -> float:
    return event.score
