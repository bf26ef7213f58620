"""How many requests of one space may be in progress: the bound that a flood on it meets first.

It is decided before the body of a request is read. Beyond the bound `/recommend` answers from the popular items,
without Redis and without the model; beyond twice the bound, and on every other route, the answer is 429.
"""

from __future__ import annotations

from typing import Literal

from service.common.metrics import RECOMMEND, Metrics
from service.guard.loop_turns import SpaceTurn

# Probes, metrics and operators are never turned away: a flood is when they are needed.
_ALWAYS = frozenset({"/healthz", "/readyz", "/metrics", "/version"})
_OPERATORS = "/ops"
# Lists of popular items cost little, but not nothing: beyond so many times the bound there are none either.
_HURRIED = 2

Admission = Literal["admitted", "hurried", "refused"]


class InFlight:
    """Counts the requests of one space that are in progress.

    Args:
        most: The bound.
        metrics: Of the space.
        turns: Of the space on the event loop.
    """

    def __init__(self, most: int, metrics: Metrics, turns: SpaceTurn) -> None:
        self._most, self._metrics, self._turns, self._now = most, metrics, turns, 0

    def counts(self, path: str) -> bool:
        """Returns whether requests of this path are bounded; the version of the API is not part of the path."""
        return path not in _ALWAYS and not path.startswith(_OPERATORS)

    def begin(self, path: str) -> Admission:
        """Counts a request until `end`, and returns how it is answered."""
        self._now += 1
        if self._now <= self._most:
            return "admitted"
        admission: Admission = "hurried" if path == RECOMMEND and self._now <= _HURRIED * self._most else "refused"
        self._metrics.crowded.labels(admission).inc()
        return admission

    async def turn(self) -> None:
        """Waits until the request may take the event loop; at once, unless many of its space came together."""
        if not self._turns.take():
            await self._turns.turn()

    def end(self) -> None:
        """Ends a request."""
        self._now -= 1
