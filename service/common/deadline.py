"""One absolute point in time that travels with a request."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

Clock = Callable[[], float]

# Proxies give a request up by then (nginx and most load balancers: 60 s): a longer wait is a clock that is wrong.
_LONGEST_WAIT_S = 60.0
# Requests of which the quickest shows whether waits can be measured at all.
_JUDGED_BY = 32
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


def waited(header: str | None, *, epoch_now: float) -> float | None:
    """Seconds since the moment of an `X-Request-Start` header (epoch milliseconds), by the wall clock `epoch_now`
    (seconds); negative where that moment is still to come, None where the header is no time.

    Proxies that write seconds or microseconds (nginx: `t=1700000000.123`) are understood: read as milliseconds, theirs
    would take all the time from every request.
    """
    if header is None:
        return None
    try:
        started = float(header.strip().removeprefix("t="))
    except ValueError:
        return None
    if started < SECONDS_BELOW:
        started *= 1000.0
    elif started > _MICROSECONDS_ABOVE:
        started /= 1000.0
    wait = epoch_now - started / 1000.0
    return None if math.isnan(wait) else wait


class Waits:
    """How long requests had waited when they arrived, as far as the clocks can be trusted.

    The header's moment is of another machine's wall clock. Where the two disagree, or one of them jumps, every request
    seems to have waited for as long as they differ, and would be answered with what fits no time at all. Two things
    tell such a wait from a real one:

    - nobody waits longer than a minute (nor a negative time): that wait is not believed;
    - some requests do not wait: `quickest` is the smallest of the last 32 to 63 waits (0 until there were so many), and
      a budget which even that one had overrun cannot be kept by believing it. Such a budget counts from the arrival
      (`RequestContext.deadline`); longer ones still from the beginning, since a queue in front of the service may be
      that long.

    What is left is a disagreement shorter than the budget: it shortens the deadline, as a wait does. So a difference of
    seconds costs at most 64 answers of a lower rung, and one of hours costs none.
    """

    def __init__(self) -> None:
        self.quickest = 0.0
        self._before, self._least, self._count = 0.0, math.inf, 0

    def believed(self, wait: float | None) -> float:
        """The part of a wait, in seconds, by which a request's beginning lies before its arrival."""
        if wait is None:
            return 0.0
        self._least = min(self._least, wait)
        self._count += 1
        if self._count == _JUDGED_BY:
            self._before, self._least, self._count = self._least, math.inf, 0
        self.quickest = max(0.0, min(self._before, self._least))
        return wait if 0.0 < wait < _LONGEST_WAIT_S else 0.0
