"""The version of a log: a hash chain over its events in the order they arrived.

    version = first 64 bits of sha1(previous version, event)

A counter would repeat after a lost second of writes or an erasure; a chain does not. An encoder state is labelled with
the version of the log it was computed from. It can be extended exactly if hashing the events after its last one onto
that version gives the version of the log: a late event, an erasure or a restored backup breaks the equality.

`lua_scripts.APPEND` computes the same chain inside Redis; the tests compare the two.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterable

from service.store.records import ARRIVALS, SEPARATOR, StoredEvent, UserRecord, more_fields

VERSION_LENGTH = 16


def link(version: str, event: StoredEvent) -> str:
    """Returns the version after `event` is appended to a log of this `version` ("" for an empty log)."""
    arrival = int((event.score - event.time_ms) * ARRIVALS)
    parts = [version, str(event.time_ms), str(arrival), event.event_id, event.item_id, event.type]
    parts += more_fields(event.query, event.session)
    # SHA-1, because every Redis has it inside Lua; no adversary is assumed here.
    digest = hashlib.sha1(SEPARATOR.join(parts).encode(), usedforsecurity=False)
    return digest.hexdigest()[:VERSION_LENGTH]


def chain(version: str, events: Iterable[StoredEvent]) -> str:
    """Returns the version after `events` are appended in the given order."""
    for event in events:
        version = link(version, event)
    return version


def tail(record: UserRecord, version: str, last_score: float) -> tuple[StoredEvent, ...] | None:
    """Finds the events that a state lacks.

    Args:
        record: The log.
        version: Version of the log that the state was computed from.
        last_score: Score of the newest event that the state covers.

    Returns:
        The missing events, empty if the state is up to date; None if the state cannot be extended to this log.
    """
    start = bisect_right(record.events, last_score, key=_score)
    events = record.events[start:]
    return events if chain(version, events) == record.version else None


def _score(event: StoredEvent) -> float:
    return event.score
