"""What the network read from its memory, as the reasons for a list say it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from service.artifact.array_types import FloatArray, IntArray
from service.engine.interface import MemoryRead

DIGITS = 6


def memory_reason(
    memory: MemoryRead, places: IntArray, times_ms: Sequence[int], event_at: Callable[[int], dict[str, Any]]
) -> dict[str, Any]:
    """Returns the event and the session of which most was read, and the shares of slots and horizons.

    Args:
        memory: What was read.
        places: [n] place in the history of each event that was encoded; the newest are those of `memory`.
        times_ms: Times of the history's events, in epoch milliseconds.
        event_at: Describes the event at a place of the history.
    """
    places = places[len(places) - len(memory.events) :]
    best = int(memory.events.argmax())
    share, horizons = float(memory.events[best]), memory.horizons
    return {
        "event": {**event_at(int(places[best])), "share": round(share, DIGITS)} if share > 0 else None,
        "session": None if memory.sessions is None else _session(memory.events, memory.sessions, places, times_ms),
        "slots": None if memory.slots is None else [round(one, DIGITS) for one in memory.slots.tolist()],
        "horizons": None if horizons is None else {name: round(one, DIGITS) for name, one in horizons.items()},
        "earlier": round(max(0.0, 1.0 - float(memory.events.sum())), DIGITS),
    }


def _session(events: FloatArray, sessions: IntArray, places: IntArray, times_ms: Sequence[int]) -> dict[str, Any]:
    """The session with the largest share of what was read."""
    shares = np.bincount(sessions - sessions.min(), weights=events)
    inside = places[sessions - sessions.min() == shares.argmax()]
    return {
        "share": round(float(shares.max()), DIGITS),
        "events": len(inside),
        "from_ms": times_ms[int(inside[0])],
        "to_ms": times_ms[int(inside[-1])],
    }
