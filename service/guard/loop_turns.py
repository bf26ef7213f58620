"""Turns of the spaces on the event loop: a few requests of each space begin in each round of it.

A request takes the event loop for up to a millisecond, and hundreds of one space may arrive at once. If all of them
began in the round in which they arrive, a request of another space would wait for all. So those beyond a few wait for
the next rounds, between which the loop reads what has arrived meanwhile. A request that waits is in progress, and so
the bound of its space sees it (`service.guard.in_flight`).

Rounds also show how busy the loop is. While several spaces ask and requests take more than half of its time, the space
that asks most gives way: its bound is cut, and recovers with time (additive increase, multiplicative decrease, as in
Chiu and Jain, *Analysis of the increase and decrease algorithms for congestion avoidance*, 1989).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from math import exp
from time import perf_counter

# Requests of one space that begin in one round.
_AT_ONCE = 2
# Share of the time in which rounds are under way beyond which others wait too long for their turns, and how long it is
# measured. Threads of the engines, reading and answering take the rest.
_BUSY, _BUSY_OVER_S = 0.5, 0.05
# What a cut leaves of the bound, and how much is enough for a page that asks for a few lists at once.
_CUT_TO, _LEAST = 0.7, 4
_RECOVERED_A_SECOND = 20.0
# Requests count for about as long towards how crowded a space is.
_CROWD_S = 0.2
# Requests beside each other.
SEVERAL = 2
# A space is asked for as long after its last request.
_ASKED_FOR_S = 1.0


class LoopTurns:
    """The rounds of the event loop, as all spaces see them.

    Attributes:
        in_progress: Requests of all spaces that have begun and not ended.
        on_several: Called when a second request joins one that is in progress; None for nothing.
    """

    def __init__(self, at_once: int = _AT_ONCE, clock: Callable[[], float] = perf_counter) -> None:
        """Begins without requests.

        Args:
            at_once: Requests of one space that begin in one round.
            clock: Returns the time in seconds.
        """
        self.at_once, self.clock = at_once, clock
        self._spaces: list[SpaceTurn] = []
        self.in_progress = 0
        self.on_several: Callable[[], None] | None = None
        self._scheduled: float | None = None
        self._window, self._busy_s = clock(), 0.0

    def space(self, most: int) -> SpaceTurn:
        """Returns the turns of one more space.

        Args:
            most: Bound of its requests in progress.
        """
        space = SpaceTurn(self, most)
        self._spaces.append(space)
        return space

    def schedule(self) -> None:
        """Begins the next round after this one."""
        if self._scheduled is None:
            self._scheduled = self.clock()
            asyncio.get_running_loop().call_soon(self._round)

    def _round(self) -> None:
        now = self.clock()
        if self._scheduled is not None:
            self._busy_s += now - self._scheduled
            self._scheduled = None
        if (window_s := now - self._window) >= _BUSY_OVER_S:
            if self._busy_s > _BUSY * window_s:
                self._give_way(now)
            self._window, self._busy_s = now, 0.0
        for space in self._spaces:
            if space.next_round():
                self.schedule()

    def _give_way(self, now: float) -> None:
        """Cuts the bound of the space that asks most, if there is another to give way to."""
        asked_for = [space for space in self._spaces if now - space.asked < _ASKED_FOR_S]
        if len(asked_for) > 1:
            max(asked_for, key=lambda space: space.crowding(now)).cut(now)


class SpaceTurn:
    """The turns of one space, and the bound of its requests in progress.

    Attributes:
        in_progress: Requests that have begun and not ended.
        asked: Time of the last request.
    """

    __slots__ = ("_begun", "_crowd", "_limit", "_most", "_read", "_turns", "_waiting", "asked", "in_progress")

    def __init__(self, turns: LoopTurns, most: int) -> None:
        self._turns, self._most = turns, most
        self._limit, self._read = float(most), turns.clock()
        self._begun, self._crowd = 0, 0.0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.in_progress, self.asked = 0, float("-inf")

    def limit(self) -> float:
        """Returns how many requests may be in progress, for one that has just come."""
        now = self._turns.clock()
        self._crowd = 1.0 + self._crowd * exp((self.asked - now) / _CROWD_S)
        self.asked = now
        if self._limit < self._most:
            self._recover(now)
        return self._limit

    def begin(self) -> None:
        """Counts a request that begins."""
        self.in_progress += 1
        self._turns.in_progress += 1
        if self._turns.in_progress == SEVERAL and self._turns.on_several is not None:
            self._turns.on_several()

    def end(self) -> None:
        """Counts a request that ends."""
        self.in_progress -= 1
        self._turns.in_progress -= 1

    def crowding(self, now: float) -> float:
        """Returns how many requests came lately beside how many may be in progress without a cut."""
        return self._crowd * exp((self.asked - now) / _CROWD_S) / self._most

    def cut(self, now: float) -> None:
        """Cuts the bound, to a share of what is in progress if that is less than the bound."""
        self._recover(now)
        self._limit = max(min(_LEAST, self._most), _CUT_TO * min(self._limit, self.in_progress))

    def _recover(self, now: float) -> None:
        self._limit = min(self._most, self._limit + _RECOVERED_A_SECOND * (now - self._read))
        self._read = now

    def take(self) -> bool:
        """Takes a turn of this round; returns whether there was one. If not, wait for `turn`."""
        if self._turns.in_progress < SEVERAL:
            return True  # nobody waits for it, and a round of the loop costs a look at its sockets
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
