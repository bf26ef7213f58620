"""The clock that replicas share: Redis's, carried on by this machine's monotonic clock between two replies.

Wall clocks disagree and jump; what ends at a given time has to end on every replica at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime


class SharedClock:
    """Call it for epoch seconds. Until Redis was heard it is the wall clock as it was at the start."""

    def __init__(self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._offset_s = wall() - monotonic()
        self.heard_once = False

    def __call__(self) -> float:
        return self._monotonic() + self._offset_s

    def stamp(self) -> float:
        """To be taken before asking Redis, and given to `heard` with its reply."""
        return self._monotonic()

    def heard(self, server_s: float, asked: float) -> float:
        """Redis's clock said `server_s`, half-way between the question and now. Returns by how much this one moved."""
        offset = server_s - (asked + self._monotonic()) / 2.0
        moved, self._offset_s = offset - self._offset_s, offset
        self.heard_once = True
        return moved


def iso(epoch_s: float | None) -> str | None:
    """A time as people read it, to the millisecond, UTC."""
    return None if epoch_s is None else datetime.fromtimestamp(epoch_s, UTC).isoformat(timespec="milliseconds")
