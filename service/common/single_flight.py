"""One call for all concurrent callers."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from service.common.deadline import Clock

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Shares one call between concurrent callers, and its result for `hold_s` seconds afterwards.

    If the call fails, every waiter gets the same exception; it is not kept.
    """

    def __init__(self, hold_s: float = 0.0, clock: Clock = time.monotonic) -> None:
        self._hold_s, self._clock = hold_s, clock
        self._task: asyncio.Task[T] | None = None
        self._valid_until = -math.inf

    async def get(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Returns the result; calls `make` if no call is running and no result is kept.

        A caller that is cancelled does not stop the call for the others.
        """
        if self._task is None or (self._task.done() and self._clock() >= self._valid_until):
            self._task = asyncio.create_task(self._run(make))
        return await asyncio.shield(self._task)

    def cancel(self) -> None:
        """Cancels the running call, if there is one."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        result = await make()
        self._valid_until = self._clock() + self._hold_s
        return result
