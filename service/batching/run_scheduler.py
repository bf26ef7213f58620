"""Lets the spaces of a process take turns on each graph, so that a flood on one does not starve the others.

A batcher asks for a turn before each run, and chooses the jobs of the run when it has its turn: they are the ones that
wait by then. A process with one space needs no scheduler, and its batchers have none.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

from service.batching.fair_turns import Account, FairTurns, Queued, Turn
from service.common.deadline import Clock

# How often a thread that waits looks whether a run has taken too long.
_LOOK_S = 0.1


class RunScheduler:
    """The turns of all spaces on one graph. Safe to call from several threads.

    Attributes:
        turns: Decides whose turn it is.
    """

    def __init__(self, clock: Clock = time.monotonic, **limits: Any) -> None:
        """Begins without spaces.

        Args:
            clock: Monotonic seconds.
            limits: As for `FairTurns`.
        """
        self._clock = clock
        self.turns = FairTurns(**limits)
        self._lock = threading.Lock()
        self._granted: dict[Turn, threading.Event] = {}
        self._lanes: list[Lane] = []

    def account(self, share: float = 1.0) -> SpaceTurns:
        """Returns the place of a space, with its part of the time when others want to run too."""
        return SpaceTurns(self, Account(share))

    def join(self, account: Account, queued: Queued) -> Lane:
        """Returns the lane of a batcher."""
        lane = Lane(self, account, queued)
        with self._lock:
            self._lanes = [*self._lanes, lane]
        return lane

    def leave(self, lane: Lane) -> None:
        """Forgets the lane of a batcher that was closed."""
        with self._lock:
            self._lanes = [other for other in self._lanes if other is not lane]

    def take(self, turn: Turn) -> None:
        """Waits until it is the turn's turn."""
        with self._lock:
            self.turns.ask(turn)
            first = self.turns.next(self._clock())
            if first is turn:
                return
            granted = self._granted[turn] = threading.Event()
            if first is not None:
                self._granted.pop(first).set()
        while not granted.wait(_LOOK_S):
            with self._lock:
                self._grant()

    def end(self, turn: Turn) -> None:
        """Ends a turn, and wakes the next one."""
        with self._lock:
            self.turns.end(turn, self._clock())
            self._grant()

    def wait_s(self, lane: Lane, work_s: float, last_s: float) -> float:
        """Forecasts for how long others would run before work of a lane is done; see `FairTurns.wait_s`."""
        now = self._clock()
        with self._lock:
            under_way, hung = self.turns.running(now)
        left_out = {lane.queued, *(turn.queued for turn in hung)}
        # Batchers are asked without the lock: they have locks of their own.
        lanes = [other for other in self._lanes if other.queued not in left_out]
        others = [(other.account, backlog) for other in lanes if (backlog := other.queued.backlog()).seconds]
        if not others and all(turn.queued is lane.queued for turn in under_way):
            return 0.0
        running = []
        for turn in under_way:
            # What is left of an own run is part of the work.
            left = 0.0 if turn.queued is lane.queued else turn.queued.left_s()
            running.append((turn.account, now - (turn.since or now) + left, left))
        with self._lock:
            return self.turns.wait_s(lane.account, work_s, last_s, others, running)

    def _grant(self) -> None:
        turn = self.turns.next(self._clock())
        if turn is not None:
            self._granted.pop(turn).set()


@dataclass(frozen=True, slots=True)
class SpaceTurns:
    """The place of a space in a scheduler; all its batchers of the graph share it."""

    scheduler: RunScheduler
    account: Account

    def join(self, queued: Queued) -> Lane:
        """Returns the lane of a batcher."""
        return self.scheduler.join(self.account, queued)


@dataclass(frozen=True, slots=True, eq=False)
class Lane:
    """Where the threads of one batcher ask for their turns."""

    scheduler: RunScheduler
    account: Account
    queued: Queued

    def take(self) -> Turn:
        """Waits for a turn and returns it. `end` must be called with it, whatever comes of the run."""
        turn = Turn(self.account, self.queued)
        self.scheduler.take(turn)
        return turn

    def end(self, turn: Turn) -> None:
        """Ends a turn."""
        self.scheduler.end(turn)

    def wait_s(self, work_s: float, last_s: float) -> float:
        """Forecasts for how long others would run before so many seconds of own work are done.

        Args:
            work_s: Seconds of all own runs until the work is done.
            last_s: Seconds of the last of them.
        """
        return self.scheduler.wait_s(self, work_s, last_s)

    def leave(self) -> None:
        """Ends the lane. No thread may wait in it."""
        self.scheduler.leave(self)


@dataclass(frozen=True, slots=True)
class StageTurns:
    """The place of a space in front of each graph; None where it has the graph for itself."""

    encode: SpaceTurns | None
    decode: SpaceTurns | None


NO_TURNS = StageTurns(None, None)


class GraphTurns:
    """The schedulers of a process, one for each graph: they run side by side, and so they have queues of their own."""

    def __init__(self) -> None:
        self._encode, self._decode = RunScheduler(), RunScheduler()

    def of_space(self, share: float = 1.0) -> StageTurns:
        """Returns the place of a space, with its part of the time when others want to run too."""
        return StageTurns(self._encode.account(share), self._decode.account(share))
