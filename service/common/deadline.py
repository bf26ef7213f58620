"""The deadline of a request: one absolute point in time that travels with it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import NamedTuple

Clock = Callable[[], float]

# nginx and most load balancers give up after 60 s, so a longer wait means that a clock is wrong.
_LONGEST_WAIT_S = 60.0
# Clocks that are kept in step differ by less. A start further in the future is that of a wrong clock.
_CLOCKS_APART_S = 0.05
# Requests in one window; the shortest wait of a window shows whether waits can be measured at all.
_WINDOW = 32
# The year 5138 in seconds and 1973 in milliseconds; the year 5138 in milliseconds and 1973 in microseconds.
SECONDS_BELOW = 1e11
_MICROSECONDS_ABOVE = 1e14


class Deadline(NamedTuple):
    """The monotonic time by which an answer must have left.

    Every stage uses `remaining()`; no stage has a time-out of its own.

    Attributes:
        at: The deadline, in seconds of `clock`.
        clock: Returns the present time, in seconds.
    """

    at: float
    clock: Clock = time.monotonic

    @classmethod
    def after(cls, seconds: float, clock: Clock = time.monotonic, *, began: float | None = None) -> Deadline:
        """Returns a deadline `seconds` after `began` (monotonic seconds; now if None)."""
        return cls((clock() if began is None else began) + seconds, clock)

    def remaining(self) -> float:
        """Returns the seconds left, never negative."""
        return max(0.0, self.at - self.clock())

    @property
    def passed(self) -> bool:
        """Whether no time is left."""
        return self.clock() >= self.at

    def keeping(self, seconds: float) -> Deadline:
        """Returns a deadline earlier by `seconds`, which are kept for the work that follows."""
        return Deadline(self.at - seconds, self.clock)


def waited(header: str | None, *, epoch_now: float) -> float | None:
    """Returns how long a request waited before it arrived, by its `X-Request-Start` header.

    The header holds epoch milliseconds. Proxies that write seconds or microseconds (nginx: `t=1700000000.123`) are
    understood: read as milliseconds, such a value would use up the budget of every request.

    Args:
        header: The value of the header.
        epoch_now: The wall clock, in seconds.

    Returns:
        Seconds; negative if the time lies in the future, None if the header is not a time.
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
    """Measures how long the requests of one sender waited before they arrived, as far as its clock can be trusted.

    The time in the header comes from another machine's wall clock. If the two clocks disagree, or one of them jumps,
    every request seems to have waited for as long as they differ, and its budget seems to be used up. Two rules tell
    such a wait from a real one:

    - No request waits for more than a minute, or for a negative time: such a wait is ignored. A start that lies in the
      future by no more than clocks differ counts as no wait.
    - Some requests do not wait. `quickest` is the smallest of the last 32 to 63 waits (0 until there are that many).
      If even that wait is longer than a budget, the budget counts from the arrival (`RequestContext.deadline`).
      Longer budgets still count from the beginning, since a queue in front of the service may be that long.

    A disagreement shorter than the budget remains: it shortens the deadline as a wait does. So a difference of seconds
    costs at most 64 answers from a lower rung, and one of hours costs none. Each sender has waits of its own
    (`service.api.senders`): among several, the one with the right clock would vouch for the others.
    """

    def __init__(self) -> None:
        self.quickest = 0.0
        self._before, self._least, self._count = 0.0, math.inf, 0

    def believed(self, wait: float | None) -> float:
        """Returns the seconds by which a request began before it arrived: `wait` if it is plausible, else 0.

        Args:
            wait: What `waited` returned for the request.
        """
        if wait is None or not -_CLOCKS_APART_S <= wait < _LONGEST_WAIT_S:
            return 0.0
        wait = max(0.0, wait)
        self._least = min(self._least, wait)
        self._count += 1
        if self._count == _WINDOW:
            self._before, self._least, self._count = self._least, math.inf, 0
        self.quickest = min(self._before, self._least)
        return wait
