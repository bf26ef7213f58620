"""Measures how late the event loop runs its timers: often while requests are beside each other, seldom otherwise.

A timer costs a wake-up of the process. With one request at a time nothing waits for the loop, so that its lag decides
nothing; the second request that joins brings the next measurement forward.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from service.guard.loop_turns import SEVERAL, LoopTurns
from service.metrics.service_metrics import Metrics

# Without requests beside each other, so many times the interval lies between two measurements.
_SELDOM = 5


class LoopWatch:
    """Measures the lag of the event loop, and tells it."""

    def __init__(self, metrics: Metrics, turns: LoopTurns, interval_s: float, tell: Callable[[float], None]) -> None:
        """Begins to measure with `run`.

        Args:
            metrics: Keeps the last lag.
            turns: Count the requests in progress, and say when there are several.
            interval_s: Seconds between two measurements while several requests are in progress.
            tell: Called with each lag, in seconds.
        """
        self._metrics, self._turns, self._interval_s, self._tell = metrics, turns, interval_s, tell
        self._timer: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Measures until it is cancelled."""
        loop = asyncio.get_running_loop()
        self._turns.on_several = self._sooner
        self._wait(loop)
        try:
            await loop.create_future()
        finally:
            self._turns.on_several = None
            if self._timer is not None:
                self._timer.cancel()

    def _wait(self, loop: asyncio.AbstractEventLoop) -> None:
        due = loop.time() + self._interval_s * (1 if self._turns.in_progress >= SEVERAL else _SELDOM)
        self._timer = loop.call_at(due, self._measure, loop, due)

    def _measure(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        lag = max(0.0, loop.time() - due)
        self._metrics.loop_lag.set(lag)
        self._tell(lag)
        self._wait(loop)

    def _sooner(self) -> None:
        """Brings the next measurement forward. Requests that come and go do not put it off again."""
        loop = asyncio.get_running_loop()
        if self._timer is not None and self._timer.when() > loop.time() + self._interval_s:
            self._timer.cancel()
            self._wait(loop)
