"""Bounds what one user's history can cost: a robot may have as many events as all other users together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from model.data.dataset import Sequences

# Newest events of a user that item-CF counts. It compares every pair of a user's items, so the time grows with the
# square of this number.
ITEM_CF_EVENTS = 5000
# Newest events of a history that repeat purchase counts; older ones weigh next to nothing.
REPEAT_EVENTS = 200


def newest(log: Sequences, limit: int) -> Sequences:
    """Returns the log with at most `limit` events of each user, the newest ones; the same object if none has more."""
    if log.n_events == 0 or int(log.lengths.max()) <= limit:
        return log
    before_end = np.repeat(log.offsets[1:], log.lengths) - np.arange(log.n_events)
    kept = before_end <= limit
    return replace(
        log,
        offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum(np.minimum(log.lengths, limit))]),
        item=log.item[kept],
        type=log.type[kept],
        time_ms=log.time_ms[kept],
        scene=None if log.scene is None else log.scene[kept],
    )


def note_on_long(log: Sequences, limit: int, who: str) -> str | None:
    """Returns a sentence about users with more than `limit` events, None if there are none.

    Args:
        log: The log.
        limit: The newest events of a user that are read.
        who: What reads no more than these.
    """
    users = int((log.lengths > limit).sum())
    if not users:
        return None
    have = "1 user has" if users == 1 else f"{users:,} users have"
    return (
        f"{have} more than {limit:,} events, the longest history has {int(log.lengths.max()):,}: {who} the newest "
        f"{limit:,} alone. If it is a robot, leave it out of the import with --null"
    )
