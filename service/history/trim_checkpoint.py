"""Checkpoints of states that remember more than the log keeps. Pure.

Such a state cannot be rebuilt from the log alone. So an earlier one is kept as a checkpoint, which covers the oldest
events of the log: a rebuild adds the events after it. As the log is trimmed, the checkpoint moves on: behind the
answers, by a quarter of the log at a time. Its place leaves room for half a log of new events that come at once, and
the newest quarter of the log for events that come late.

    events    trimmed │ kept by the log: covered by the checkpoint │ a rebuild adds these, and late ones among them
                      └ oldest event                               └ floor

From the moment at which a checkpoint is stored, the log takes no event that it should have had: events up to the
*floor*, the score of the newest one that it covers, are refused, and counted by name (`AppendResult.late`). So log and
checkpoint together are always the whole truth.

More events at once than there is room for trim some that the checkpoint lacks. Then the newest state, which has them,
becomes the checkpoint. If that state has a late event against it as well, the rebuild continues after the gap, which is
counted. A model that has no checkpoint yet, a new one, begins with the log that there is.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace

from service.history.history import History
from service.history.state_blob import NO_CHECKPOINT, VersionedState
from service.store.records import StoredEvent, UserRecord


@dataclass(frozen=True, slots=True)
class Advance:
    """The events that a checkpoint is to cover next: those of the log from `start` to before `end`."""

    start: int
    end: int


def needs_checkpoint(record: UserRecord, cap: int) -> bool:
    """Returns whether a state of this log can have a checkpoint, so that it is worth looking for."""
    return 2 * len(record.events) >= cap or record.seen.count > 0


def is_due(record: UserRecord, since: float, cap: int) -> bool:
    """Returns whether the checkpoint leaves too little room for events that come at once.

    Args:
        record: The log.
        since: Score of the newest event that the checkpoint covers; `NO_CHECKPOINT` without one.
        cap: Events that the log keeps.
    """
    return cap - len(record.events) + _covered(record.events, since) < cap // 2


def has_gap(record: UserRecord, checkpoint: VersionedState, cap: int) -> bool:
    """Returns whether the log has trimmed events that the checkpoint may lack."""
    return len(record.events) >= cap and checkpoint.last_score < record.events[0].score


def advance(record: UserRecord, state: VersionedState, checkpoint: VersionedState | None, cap: int) -> Advance | None:
    """Returns what to add to the checkpoint, or to an empty state without one.

    Args:
        record: The log.
        state: The state of its newest event.
        checkpoint: The newest one, which is due to move on.
        cap: Events that the log keeps.

    Returns:
        None if the log no longer has the events between: the state itself must become the checkpoint.
    """
    events = record.events
    if checkpoint is None:
        # From the start of the history, or from where the state itself began because the log was trimmed before.
        lost = len(events) >= cap if state.began == NO_CHECKPOINT else events[0].score > state.began
    else:
        lost = has_gap(record, checkpoint, cap)
    start = 0 if checkpoint is None else _covered(events, checkpoint.last_score)
    return None if lost else Advance(start, len(events) - max(1, cap // 4))


def first_after(history: History, events: Sequence[StoredEvent], checkpoint: VersionedState) -> int:
    """Returns the position of the first event of a history that a checkpoint does not cover.

    Events of a request that are older than the checkpoint are left out (`left_out` counts them).

    Args:
        history: The log, or one with the events of a request merged in.
        events: The log. Searches in it are no part of the history.
        checkpoint: The checkpoint.
    """
    events = [event for event in events if event.item_id]
    covered = _covered(events, checkpoint.last_score)
    if history.stored == len(events):
        return covered
    # The merge puts stored events before those of the request that have the same time.
    border_ms = int(checkpoint.last_score)
    same_time = covered - sum(event.time_ms < border_ms for event in events[:covered])
    return bisect_left(history.times_ms, border_ms) + same_time


def left_out(history: History, events: Sequence[StoredEvent], checkpoint: VersionedState) -> int:
    """Returns how many events of a request are too old for a state that is rebuilt from the checkpoint.

    Args:
        history: The log, or one with the events of a request merged in.
        events: The log.
        checkpoint: The checkpoint.
    """
    own = _covered([event for event in events if event.item_id], checkpoint.last_score)
    return first_after(history, events, checkpoint) - own


def as_checkpoint(state: VersionedState) -> VersionedState:
    """Returns a state as a checkpoint of its own log."""
    return replace(state, since=state.last_score, checkpoint=None)


def _covered(events: Sequence[StoredEvent], since: float) -> int:
    """Number of the log's events that a checkpoint of this score covers."""
    return bisect_right(events, since, key=_score)


def _score(event: StoredEvent) -> float:
    return event.score
