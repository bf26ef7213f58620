"""Cycles on their schedule, one at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from deploy.loop.run.cycle import AttemptError, carry_on
from deploy.loop.run.journal import Cycle, Journal, Kind, seconds_of
from deploy.loop.run.locks import Commands
from deploy.loop.run.retention import keep_house
from deploy.loop.run.schedule import Schedule
from deploy.loop.run.world import World
from service.common import logs
from service.metrics.loop_metrics import LoopMetrics

log = logs.get(__name__)

# Longest sleep, so that a clock that was set is noticed.
_SLEEP_S = 30.0
_ORPHANS_S = 1.0
_BAD = ("refused", "returned", "timed_out", "failed")


class Loop:
    """Runs cycles.

    Attributes:
        failing: What failed last; None while all is well.
    """

    def __init__(self, world: World, schedule: Schedule, metrics: LoopMetrics) -> None:
        self._world, self._schedule, self._metrics = world, schedule, metrics
        self._began = world.clock()
        self.failing: str | None = None

    async def wait_for_commands(self, commands: Commands) -> None:
        """Waits until no command of a loop that was killed runs any more."""
        said = False
        while not commands.free():
            if not said:
                log.warning("waiting", detail="a command of an earlier loop, which was killed, still runs")
                said = True
            await asyncio.sleep(_ORPHANS_S)

    async def once(self, kind: Kind | None = None) -> Cycle:
        """Goes on with the open cycle, or does a new one.

        Args:
            kind: Of a new one; None: what is due, or else an increment.

        Raises:
            AttemptError: A step failed.
        """
        cycles = self._journal.cycles()
        if cycles and cycles[-1].open:
            cycle = cycles[-1]
            log.info("goes_on", cycle=cycle.id, kind=cycle.kind, step=cycle.step)
        else:
            now = self._world.clock()
            due = self._schedule.due(cycles, now)
            chosen: Kind = kind or (due[0] if due else "increment")
            cycle = self._journal.begun(chosen, now, due[1] if due and due[0] == chosen else None, cycles)
            log.info("cycle_begun", cycle=cycle.id, kind=cycle.kind)
        try:
            await carry_on(self._world, cycle)
            self.failing = None
        except AttemptError as error:
            self.failing = str(error)
            self._metrics.failures.labels(cycle.step).inc()
            self.measure(cycle)
            raise
        self.measure(cycle)
        await keep_house(self._world)
        return cycle

    async def run(self) -> None:
        """Does what is due, until it is cancelled."""
        while True:
            cycles = self._journal.cycles()
            now = self._world.clock()
            self.measure()
            if (cycles and cycles[-1].open) or self._schedule.due(cycles, now) is not None:
                try:
                    await self.once()
                except AttemptError:
                    await self._pause_after_failure()
                continue
            await self._world.pause(max(0.0, min(self._schedule.next(now) - now, _SLEEP_S)))

    async def _pause_after_failure(self) -> None:
        newest = self._journal.cycles()[-1]
        if newest.open:
            await self._world.pause(self._world.settings.loop_retry_s * 2.0 ** (newest.attempts - 1))

    def measure(self, ended: Cycle | None = None) -> None:
        """Brings the metrics up to date.

        Args:
            ended: A cycle that was worked on.
        """
        cycles, metrics = self._journal.cycles(), self._metrics
        settings = self._world.settings
        if ended is not None and ended.outcome is not None:
            metrics.cycles.labels(ended.kind, ended.outcome).inc()
        for step, brought in (cycles[-1].steps if cycles else {}).items():
            if "ended_at" in brought:
                metrics.step_seconds.labels(step).set(
                    seconds_of(brought["ended_at"]) - seconds_of(brought["started_at"])
                )
        done = [one for one in cycles if one.outcome not in (None, "failed")]
        metrics.finished_at.set(seconds_of(done[-1].ended_at or "") if done else self._since(cycles))
        promoted = [one for one in done if one.outcome == "promoted"]
        metrics.promoted_at.set(seconds_of(promoted[-1].ended_at or "") if promoted else 0.0)
        metrics.patience.set(3.0 * self._schedule.interval_s + settings.loop_canary_hours * 3600.0)
        metrics.without_promotion.set(not_promoted_in_a_row(cycles))
        found = next((one.brought("data", "new") for one in reversed(cycles) if one.brought("data", "new")), 0)
        metrics.new_events.set(found)

    @property
    def _journal(self) -> Journal:
        return self._world.journal

    def _since(self, cycles: Sequence[Cycle]) -> float:
        return seconds_of(cycles[0].started_at) if cycles else self._began


def not_promoted_in_a_row(cycles: Sequence[Cycle]) -> int:
    """Returns how many of the newest cycles ended without a promotion that they tried for."""
    count = 0
    for cycle in reversed(cycles):
        if cycle.outcome in _BAD:
            count += 1
        elif cycle.outcome == "promoted":
            break
    return count
