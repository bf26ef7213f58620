"""How many requests of one space may be in progress: the bound that a flood on it meets first.

It is decided before the body of a request is read. Beyond the bound `/recommend` answers from the popular items,
without Redis and without the model; beyond twice the bound, and on every other route, the answer is 429. While the
event loop is busy, the bound of a crowded space gives way to the other spaces (`service.guard.loop_turns`).

A refusal costs little, but a client that is refused at once asks again at once: reading and refusing what a few hundred
connections send takes longer than the lists of the others may. So a refusal is held for a moment, in which its
connection sends nothing.
"""

from __future__ import annotations

import asyncio
from typing import Literal

from service.guard.loop_turns import SpaceTurn
from service.metrics.service_metrics import RECOMMEND, Metrics

# Probes, metrics and operators are never turned away: a flood is when they are needed.
_ALWAYS = frozenset({"/healthz", "/readyz", "/metrics", "/version"})
_OPERATORS = "/ops"
# Lists of popular items cost little, but not nothing: beyond so many times the bound there are none either.
_HURRIED = 2
# A held refusal takes memory, so there are not more of them.
_HELD_S, _HELD_MOST = 1.0, 1024

Admission = Literal["admitted", "hurried", "refused"]


class InFlight:
    """Counts the requests of one space that are in progress.

    Args:
        metrics: Of the space.
        turns: Of the space on the event loop; they count what is in progress.
    """

    def __init__(self, metrics: Metrics, turns: SpaceTurn) -> None:
        self._metrics, self._turns, self._held = metrics, turns, 0

    def counts(self, path: str) -> bool:
        """Returns whether requests of this path are bounded; the version of the API is not part of the path."""
        return path not in _ALWAYS and not path.startswith(_OPERATORS)

    def begin(self, path: str) -> Admission:
        """Returns how a request is answered. It is counted until `end`, unless it is refused."""
        now, limit = self._turns.in_progress + 1, self._turns.limit()
        if now <= limit:
            self._turns.begin()
            return "admitted"
        admission: Admission = "refused"
        if path == RECOMMEND and now <= _HURRIED * limit:
            self._turns.begin()
            admission = "hurried"
        self._metrics.crowded.labels(admission).inc()
        return admission

    async def turn(self) -> None:
        """Waits until the request may take the event loop; at once, unless many of its space came together."""
        if not self._turns.take():
            await self._turns.turn()

    async def hold(self) -> None:
        """Holds a refused request back for a moment, unless many are held."""
        if self._held >= _HELD_MOST:
            return
        self._held += 1
        try:
            await asyncio.sleep(_HELD_S)
        finally:
            self._held -= 1

    def end(self) -> None:
        """Ends a request that was counted."""
        self._turns.end()
