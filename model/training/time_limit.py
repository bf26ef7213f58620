"""The time that a run may take: preparation, epochs, validations and the evaluation, over all resumed commands."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

Clock = Callable[[], float]

# Shares of the time that is left after the preparation: for tuning item-CF, for each validation, for the evaluation.
# What needs more is cut, and that is said.
TUNING_SHARE = 0.2
VALIDATION_SHARE = 0.1
EVALUATION_SHARE = 0.25
# Even without any time left, validation and evaluation ask this many users, or all if there are fewer.
FEWEST_USERS = 100


class TimeLimit:
    """Counts the time of a run, and keeps some of it for what follows the epochs.

    Attributes:
        cap_s: Seconds that the run may take in all; None without a limit.
        reserved_s: Seconds kept for what follows the epochs.
    """

    def __init__(self, max_minutes: float | None, *, used_s: float = 0.0, clock: Clock = time.monotonic) -> None:
        """Starts to count.

        Args:
            max_minutes: Minutes that the run may take in all; None for no limit.
            used_s: Seconds that earlier commands of the run took.
            clock: Returns seconds.
        """
        self.cap_s = None if max_minutes is None else max_minutes * 60.0
        self.reserved_s = 0.0
        self._clock = clock
        self._began = clock() - used_s

    def resume(self, used_s: float) -> None:
        """Adds the seconds that earlier commands of the run took."""
        self._began -= used_s

    @property
    def used_s(self) -> float:
        """Seconds that the run has taken so far."""
        return self._clock() - self._began

    @property
    def left_s(self) -> float:
        """Seconds left, 0 when time is up, infinite without a limit."""
        return math.inf if self.cap_s is None else max(0.0, self.cap_s - self.used_s)

    @property
    def epochs_end_s(self) -> float | None:
        """The `used_s` at which the epochs must have ended; None without a limit."""
        return None if self.cap_s is None else self.cap_s - self.reserved_s

    @property
    def epochs_left_s(self) -> float:
        """Seconds left for epochs, negative when time is up, infinite without a limit."""
        end = self.epochs_end_s
        return math.inf if end is None else end - self.used_s

    def deadline(self, share: float) -> float | None:
        """Returns the time of the clock at which a share of the time left will have passed; None without a limit."""
        return None if self.cap_s is None else self._clock() + share * self.left_s

    def users_for(self, users: int, seconds: float, share: float) -> int:
        """Returns how many users can be asked.

        Args:
            users: Users that there are.
            seconds: Time that asking all of them takes.
            share: Share of the time left that asking may take.
        """
        if self.cap_s is None or seconds <= share * self.left_s:
            return users
        return min(users, max(FEWEST_USERS, int(users * share * self.left_s / seconds)))
