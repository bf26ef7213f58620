"""One absolute point in time that travels with a request."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

Clock = Callable[[], float]

# No request waits that long: the header, or the clock it was written by, is broken.
_LONGEST_WAIT_S = 86_400.0
# The year 5138 in seconds and 1973 in milliseconds; the year 5138 in milliseconds and 1973 in microseconds.
SECONDS_BELOW = 1e11
_MICROSECONDS_ABOVE = 1e14


@dataclass(frozen=True, slots=True)
class Deadline:
    """The monotonic time `at` (seconds) by which an answer must have left.

    Every stage asks `remaining()`; no stage has a time-out of its own.
    """

    at: float
    clock: Clock = time.monotonic

    @classmethod
    def after(cls, seconds: float, clock: Clock = time.monotonic, *, began: float | None = None) -> Deadline:
        """A deadline `seconds` after `began` (monotonic; now, if not given)."""
        return cls((clock() if began is None else began) + seconds, clock)

    def remaining(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.at - self.clock())

    @property
    def passed(self) -> bool:
        return self.clock() >= self.at

    def keeping(self, seconds: float) -> Deadline:
        """The same deadline with `seconds` kept back for what must still happen afterwards."""
        return Deadline(self.at - seconds, self.clock)


def request_began(header: str | None, *, now: float, epoch_now: float) -> float:
    """Monotonic time at which a request began, from an `X-Request-Start` header (epoch milliseconds).

    The header may only move the beginning back: a value in the future, or of another day, or that is no number is
    ignored. Proxies
    that write seconds or microseconds (nginx: `t=1700000000.123`) are understood: read as milliseconds, theirs would
    take all the time from every request. `now` is monotonic, `epoch_now` is the wall clock of the same moment, both
    in seconds.
    """
    if header is None:
        return now
    try:
        started = float(header.strip().removeprefix("t="))
    except ValueError:
        return now
    if started < SECONDS_BELOW:
        started *= 1000.0
    elif started > _MICROSECONDS_ABOVE:
        started /= 1000.0
    waited = epoch_now - started / 1000.0
    return now - waited if 0.0 < waited < _LONGEST_WAIT_S else now
