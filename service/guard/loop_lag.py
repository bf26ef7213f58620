"""How late the event loop runs its timers: now, and now and then. Pure: the clock is passed in."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from service.batching.run_costs import RunningQuantile

# Number of latest lags whose median is the present lag of the event loop.
_LAGS = 5
# Time kept back for what follows a model run, which waits for the loop, the machine and the network as they are: this
# quantile of this many latest lags, up to a part of the time left.
_TAIL_SHARE, _TAIL_LAGS, _TAIL_MOST = 0.995, 500, 0.4


class LoopLag:
    """The lag of one event loop.

    The present lag is the median of the latest ones: a loop that is late repeatedly shows soon, and one long stall that
    is over takes no time from the requests after it. Short stalls that recur show in the tail.

    Args:
        clock: Monotonic seconds.

    Attributes:
        seconds: The present lag.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lags: deque[float] = deque([0.0] * _LAGS, maxlen=_LAGS)
        self._tail = RunningQuantile(_TAIL_SHARE, _TAIL_LAGS, [0.0] * _TAIL_LAGS)
        self.seconds = 0.0

    def add(self, seconds: float) -> None:
        """Adds that a timer ran this many seconds late."""
        self._lags.append(max(0.0, seconds))
        self._tail.add(self._lags[-1], self._clock())
        self.seconds = sorted(self._lags)[_LAGS // 2]

    def tail_s(self, remaining: float) -> float:
        """Returns the seconds to keep back for stalls that recur.

        Args:
            remaining: Seconds left of a request.
        """
        return min(self._tail.value, _TAIL_MOST * remaining)
