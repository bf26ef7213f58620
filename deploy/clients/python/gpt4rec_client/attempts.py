"""How long a call may take, and whether it is tried again. Pure: clock and chance are passed in."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from gpt4rec_client.errors import BadAnswer, ClientError, Problem, TimedOut, TooManyRequests, Unavailable, Unreachable

_FIRST_PAUSE_S = 0.05


class Attempts:
    """The attempts of one call, which share one deadline.

    Every call of the service can be repeated safely: events have ids, and all other writes replace a value.

    Args:
        timeout_s: Seconds for the whole call.
        retries: Further attempts after the first, at most.
        clock: Returns monotonic seconds.
        chance: Returns a number in [0, 1).
    """

    def __init__(
        self,
        timeout_s: float,
        retries: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._clock, self._chance = clock, chance
        self._until = clock() + timeout_s
        self._left = retries
        self._pause_s = _FIRST_PAUSE_S

    def remaining_s(self) -> float:
        """Returns the seconds left.

        Raises:
            TimedOut: None are left.
        """
        left = self._until - self._clock()
        if left <= 0.0:
            raise TimedOut("the time of the call is over")
        return left

    def pause_s(self, error: ClientError) -> float:
        """Returns the seconds to wait before the next attempt; raises `error` if there is none.

        Retry-After is honoured: where it is longer than the time left, waiting is of no use, so the error is raised
        at once. Otherwise pauses double, with jitter, so that clients do not come back in step.

        Args:
            error: Why the last attempt failed.
        """
        if not isinstance(error, Unreachable | TooManyRequests | Unavailable | BadAnswer) or self._left <= 0:
            raise error
        self._left -= 1
        asked = error.retry_after_s if isinstance(error, Problem) else None
        pause = self._pause_s * (0.5 + 0.5 * self._chance()) if asked is None else asked
        self._pause_s *= 2.0
        if self._clock() + pause >= self._until:
            raise error
        return pause
