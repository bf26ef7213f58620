"""Turns of the spaces on the event loop: a few requests of each space begin in each round of it.

A request takes the event loop for up to a millisecond, and hundreds of one space may arrive at once. If all of them
began in the round in which they arrive, a request of another space would wait for all. So those beyond a few wait for
the next rounds, between which the loop reads what has arrived meanwhile. A request that waits is in progress, and so
the bound of its space sees it (`service.guard.in_flight`).
"""

from __future__ import annotations

import asyncio
from collections import deque

# Requests of one space that begin in one round.
_AT_ONCE = 4


class LoopTurns:
    """The rounds of the event loop, as all spaces see them."""

    def __init__(self, at_once: int = _AT_ONCE) -> None:
        """Begins without requests.

        Args:
            at_once: Requests of one space that begin in one round.
        """
        self.at_once = at_once
        self._spaces: list[SpaceTurn] = []
        self._scheduled = False

    def space(self) -> SpaceTurn:
        """Returns the turns of one more space."""
        space = SpaceTurn(self)
        self._spaces.append(space)
        return space

    def schedule(self) -> None:
        """Begins the next round after this one."""
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._round)

    def _round(self) -> None:
        self._scheduled = False
        for space in self._spaces:
            if space.next_round():
                self.schedule()


class SpaceTurn:
    """The turns of one space."""

    __slots__ = ("_begun", "_turns", "_waiting")

    def __init__(self, turns: LoopTurns) -> None:
        self._turns = turns
        self._begun = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    def take(self) -> bool:
        """Takes a turn of this round; returns whether there was one. If not, wait for `turn`."""
        if self._waiting or self._begun >= self._turns.at_once:
            return False
        self._begun += 1
        self._turns.schedule()
        return True

    async def turn(self) -> None:
        """Waits for a turn, in order of arrival."""
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        self._turns.schedule()
        await waiting

    def next_round(self) -> bool:
        """Lets the first of those that wait begin; returns whether another round is needed."""
        self._begun = 0
        while self._waiting and self._begun < self._turns.at_once:
            waiting = self._waiting.popleft()
            if not waiting.done():  # its client may have left
                waiting.set_result(None)
                self._begun += 1
        return self._begun > 0
