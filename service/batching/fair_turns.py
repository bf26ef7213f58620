"""Which space runs next on a graph that several spaces share. Pure: no threads, times are passed in.

Each space has an account of the run time that it has used, divided by its share. The space that has used least runs
next, and a space that was idle begins where the others are: it neither saves time up nor pays for time that nobody else
wanted. This is start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996): a deficit round robin whose quantum is so
small that it need not be chosen. Runs are not interrupted, and what one costs is known when it has ended. So a space
that has used less than its share waits for one run of another space, never for two.

`service.batching.run_scheduler` adds the threads.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

# A run that takes longer does not keep others from running any more: a graph that hangs must not stop other spaces.
_PATIENCE_S = 0.5
# Accounts that differ by less are equal.
_ROUNDING_S = 1e-9


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits in front of one graph of one space.

    Attributes:
        seconds: Forecast of all runs that it will take.
        longest: Forecast of the longest of them.
    """

    seconds: float = 0.0
    longest: float = 0.0


class Queued(Protocol):
    """A batcher, as far as the forecasts of others need it."""

    def backlog(self) -> Backlog:
        """Returns what waits in it."""
        ...

    def left_s(self) -> float:
        """Forecasts the seconds left of its present run."""
        ...


@dataclass(slots=True, eq=False)
class Account:
    """The run time that a space has used of one graph.

    Attributes:
        share: Its part of the time when others want to run too, relative to theirs.
        used: Seconds used, divided by the share, on the virtual clock of all accounts.
        asking: Turns that it waits for or has.
    """

    share: float = 1.0
    used: float = 0.0
    asking: int = 0


@dataclass(slots=True, eq=False)
class Turn:
    """A turn that a batcher waits for, and then has until its run ends.

    Attributes:
        account: Of the batcher's space.
        queued: The batcher.
        since: When the run began; None while it waits.
    """

    account: Account
    queued: Queued
    since: float | None = None


class FairTurns:
    """Gives turns. Not thread-safe: callers that share it hold a lock."""

    def __init__(self, *, patience_s: float = _PATIENCE_S) -> None:
        """Begins with no turns.

        Args:
            patience_s: How long a run may keep others from running.
        """
        self._patience_s = patience_s
        self._waiting: list[Turn] = []
        self._running: list[Turn] = []
        # Where a space begins that was idle: the account of the run that began last.
        self._virtual = 0.0

    def ask(self, turn: Turn) -> None:
        """Puts a turn among those that wait."""
        turn.account.used = self._begins(turn.account)
        turn.account.asking += 1
        self._waiting.append(turn)

    def next(self, now: float) -> Turn | None:
        """Returns the turn that runs now; None if there is none, or a run is under way."""
        if not self._waiting or not all(self._too_long(turn, now) for turn in self._running):
            return None
        turn = min(self._waiting, key=lambda waiting: waiting.account.used)  # of equal ones, the one that asked first
        self._waiting.remove(turn)
        self._running.append(turn)
        turn.since = now
        self._virtual = max(self._virtual, turn.account.used)
        return turn

    def end(self, turn: Turn, now: float) -> None:
        """Ends a run and charges its account. A turn that was not used for a run costs next to nothing."""
        assert turn.since is not None  # noqa: S101 - only a turn that has begun ends
        self._running.remove(turn)
        account = turn.account
        account.asking -= 1
        account.used += max(0.0, now - turn.since) / account.share
        if not self._running and not self._waiting:
            # Nobody else wanted the time: it costs nothing once all are idle.
            self._virtual = max(self._virtual, account.used)

    def running(self, now: float) -> tuple[list[Turn], list[Turn]]:
        """Returns the turns of runs that keep others from running, and of those that have taken too long to do so."""
        hung = [turn for turn in self._running if self._too_long(turn, now)]
        return [turn for turn in self._running if turn not in hung], hung

    def wait_s(
        self,
        account: Account,
        work_s: float,
        last_s: float,
        others: Iterable[tuple[Account, Backlog]],
        running: Iterable[tuple[Account, float, float]],
    ) -> float:
        """Forecasts for how long other batchers would run before work that is added now is done.

        A batcher of another space runs before it as long as its account is behind. What is added there later is not
        known: it can take no more than the share of its space.

        Args:
            account: Of the work.
            work_s: Seconds of all own runs until the work is done.
            last_s: Seconds of the last of them.
            others: The account and the backlog of each other batcher.
            running: Of each run under way: its account, the seconds by which it will be charged beyond those that
                `work_s` has, and the seconds that `work_s` must wait for it.
        """
        wait, charged = 0.0, dict[Account, float]()
        for other, seconds, left in running:
            wait += left
            charged[other] = charged.get(other, 0.0) + seconds / other.share
        last_begins = self._begins(account) + charged.get(account, 0.0) + max(0.0, work_s - last_s) / account.share
        for other, backlog in others:
            if other is account:
                ahead = work_s
            else:
                behind = last_begins - self._begins(other) - charged.get(other, 0.0)
                # The sums round otherwise than the accounts do: of those that are equal, either may come first.
                if behind < -_ROUNDING_S:
                    continue
                ahead = max(0.0, behind) * other.share
            wait += min(backlog.seconds, ahead + backlog.longest)
        return wait

    def _begins(self, account: Account) -> float:
        """What a space has used when its next turn is compared with those of others."""
        return account.used if account.asking else max(account.used, self._virtual)

    def _too_long(self, turn: Turn, now: float) -> bool:
        return turn.since is not None and now - turn.since >= self._patience_s
