"""Calls at given times, with one timer of the event loop for all of them.

Nearly every request ends before its time is up, so nearly every timer would be set and cancelled, which takes longer
than to note a time and to forget it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Any

# Forgotten calls that are kept in the heap, unless most calls in it are live.
_FORGOTTEN_MAX = 1024

# When, a number that decides among equal times, and what to call with what; None once forgotten.
Alarm = list[Any]


class Alarms:
    """Times at which something is called. Not thread-safe: use it from one event loop only."""

    def __init__(self) -> None:
        self._heap: list[Alarm] = []
        self._numbers = count()
        self._forgotten = 0
        self._timer: asyncio.TimerHandle | None = None
        self._due = math.inf

    @property
    def size(self) -> int:
        """Number of calls that are kept, the forgotten ones included."""
        return len(self._heap)

    def at(self, when: float, call: Callable[[Any], object], argument: Any) -> Alarm:
        """Calls a function at a time.

        Args:
            when: Seconds of the event loop's clock.
            call: What to call.
            argument: What with.

        Returns:
            What `forget` takes.
        """
        alarm: Alarm = [when, next(self._numbers), call, argument]
        heappush(self._heap, alarm)
        if when < self._due:
            self._arm(when)
        return alarm

    def forget(self, alarm: Alarm) -> None:
        """Calls nothing at this time; it may have come already."""
        if alarm[2] is None:
            return
        alarm[2] = alarm[3] = None
        self._forgotten += 1
        if self._forgotten > _FORGOTTEN_MAX and 2 * self._forgotten > len(self._heap):
            self._heap = [one for one in self._heap if one[2] is not None]
            heapify(self._heap)
            self._forgotten = 0

    def _arm(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due = when
        self._timer = asyncio.get_running_loop().call_at(when, self._ring)

    def _ring(self) -> None:
        heap, due = self._heap, max(self._due, asyncio.get_running_loop().time())
        self._timer, self._due = None, math.inf
        calls = []
        while heap and (heap[0][2] is None or heap[0][0] <= due):
            _, _, call, argument = alarm = heappop(heap)
            if call is None:
                self._forgotten -= 1
            else:
                alarm[2] = alarm[3] = None
                calls.append((call, argument))
        if heap:
            self._arm(heap[0][0])
        for call, argument in calls:
            call(argument)
