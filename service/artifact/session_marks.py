"""Marks of sessions: short hashes that tell one session of a user from the next, for networks that read sessions.

Only whether two neighbours of one history have the same mark is ever read, so 32 bits are enough, and marks of a
training need not be those of the service.
"""

from __future__ import annotations

import hashlib

DIGITS = 8
# The number of an event without a known session.
NO_SESSION = 0


def mark_of(session_id: str) -> str:
    """Returns the mark of a session as a history keeps it, `DIGITS` hex digits."""
    return hashlib.blake2b(session_id.encode("utf-8", "surrogatepass"), digest_size=DIGITS // 2).hexdigest()


def mark_number(mark: str) -> int:
    """Returns the number of a mark as a network reads it, at least 1; `NO_SESSION` for an empty one.

    Raises:
        ValueError: It is no mark.
    """
    return int(mark, 16) + 1 if mark else NO_SESSION
