"""The clock that all replicas share: Redis's, continued by this machine's monotonic clock between two replies.

Wall clocks disagree and jump, but what ends at a given time has to end on every replica at once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import UTC, datetime

# A correction by less than this only repairs the estimate of half a round trip; a larger one means that Redis's clock
# was set, or that another server took over.
_SMALL_CORRECTION_S = 1.0


class SharedClock:
    """Returns epoch seconds when called.

    Until Redis's clock is heard, it continues the wall clock from the start of the process. A small correction never
    turns it back: of two times read in this process, the later one is not smaller.

    Attributes:
        heard_once: Whether Redis's clock has been heard.
        first_correction_s: By how much the first reply moved this clock, in seconds; 0 before that.
    """

    def __init__(self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._offset_s = wall() - monotonic()
        self._latest_s = -math.inf
        self.heard_once = False
        self.first_correction_s = 0.0

    def __call__(self) -> float:
        """Returns epoch seconds."""
        now = self._monotonic() + self._offset_s
        if now < self._latest_s < now + _SMALL_CORRECTION_S:
            return self._latest_s
        self._latest_s = now
        return now

    def stamp(self) -> float:
        """Returns the monotonic time to take before a call to Redis, and to pass to `heard` with the reply."""
        return self._monotonic()

    def heard(self, server_s: float, asked_s: float) -> None:
        """Corrects this clock by a reply of Redis.

        Args:
            server_s: Redis's clock in the reply, epoch seconds. It is taken to be the time half-way between the call
                and now.
            asked_s: `stamp()` from before the call.
        """
        offset_s = server_s - (asked_s + self._monotonic()) / 2.0
        if not self.heard_once:
            self.heard_once = True
            self.first_correction_s = offset_s - self._offset_s
            self._latest_s = -math.inf
        self._offset_s = offset_s


def iso(epoch_s: float | None) -> str | None:
    """Formats epoch seconds as ISO 8601 in UTC, to the millisecond; None stays None."""
    return None if epoch_s is None else datetime.fromtimestamp(epoch_s, UTC).isoformat(timespec="milliseconds")
