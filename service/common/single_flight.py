"""One answer for all who ask at the same time."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from service.common.deadline import Clock

T = TypeVar("T")


class Held(Generic[T]):
    """Whoever asks while an answer is being made, or for `hold_s` after it was, gets that one. A failure is everybody's
    who waited for it, and is not held."""

    def __init__(self, hold_s: float = 0.0, clock: Clock = time.monotonic) -> None:
        self._hold_s, self._clock = hold_s, clock
        self._made: asyncio.Task[T] | None = None
        self._holds_until = -math.inf

    async def get(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The answer; `make` makes it where there is none. A caller that goes away does not stop it for the others."""
        if self._made is None or (self._made.done() and self._clock() >= self._holds_until):
            self._made = asyncio.create_task(self._make(make))
        return await asyncio.shield(self._made)

    def cancel(self) -> None:
        """Nobody waits any more."""
        if self._made is not None:
            self._made.cancel()

    async def _make(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        made = await make()
        self._holds_until = self._clock() + self._hold_s
        return made
