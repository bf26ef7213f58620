"""The steps of a cycle, in order.

    begin    which model is in service, and its run
    sink     what the streams hold goes to the log
    data     the data of that run, and what came since
    train    an increment, or everything anew
    export   the artefact, in the folder of the cycle: the gate measures artefacts, and no service looks there
    gate     candidate against champion
    publish  the artefact goes to where the service finds versions
    canary   a part of the users gets it, and it goes back by itself
    promote  everybody gets it

Until the last step the old model is in service, whatever happens. The journal says before each step that it is tried,
and after it what it brought; a step is repeated until the journal says so.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from deploy.loop.run import introducing, preparing
from deploy.loop.run.introducing import stop
from deploy.loop.run.journal import Cycle, iso
from deploy.loop.run.world import EndedError, World
from model.errors import RunError
from service.common import logs
from service.metrics.loop_metrics import STEPS

log = logs.get(__name__)

Step = Callable[[World, Cycle], Awaitable[dict[str, Any]]]
_STEPS: dict[str, Step] = {
    "begin": preparing.begin,
    "sink": preparing.sink,
    "data": preparing.data,
    "train": preparing.train,
    "export": preparing.export,
    "gate": preparing.gate,
    "publish": introducing.publish,
    "canary": introducing.canary,
    "promote": introducing.promote,
}


class AttemptError(Exception):
    """A step failed; the cycle is open, unless it was the last attempt."""


async def carry_on(world: World, cycle: Cycle) -> None:
    """Does the steps of a cycle that are left.

    Raises:
        AttemptError: One failed. The journal has the reason, and how often it has failed.
        OSError: The journal cannot be written.
    """
    try:
        await _steps(world, cycle)
    finally:
        world.entered(None)


async def _steps(world: World, cycle: Cycle) -> None:
    for name in STEPS[STEPS.index(cycle.step) :]:
        before = cycle.steps.get(name, {})
        cycle.step = name
        cycle.steps[name] = {"started_at": before.get("started_at") or iso(world.clock()), **before}
        world.journal.save(cycle)
        world.entered(name)
        log.info("step", cycle=cycle.id, step=name, attempt=cycle.attempts + 1)
        try:
            brought = await _STEPS[name](world, cycle)
        except EndedError as ended:
            _end(world, cycle, ended.outcome, ended.reason)
            return
        except Exception as error:
            if not isinstance(error, RunError | OSError):  # an answer without what it should have, a fault of ours
                log.critical("step_broke", cycle=cycle.id, step=name, **logs.where(error))
            await _failed(world, cycle, error)
            raise AttemptError(_said(error)) from error
        cycle.steps[name].pop("error", None)
        cycle.steps[name] |= brought
        cycle.steps[name]["ended_at"] = iso(world.clock())
        cycle.attempts = 0
        if name != STEPS[-1]:
            cycle.step = STEPS[STEPS.index(name) + 1]
            world.journal.save(cycle)
    _end(world, cycle, "promoted", f"{cycle.candidate} is in service instead of {cycle.champion}")


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, RunError | OSError) else repr(error)


async def _failed(world: World, cycle: Cycle, error: Exception) -> None:
    cycle.attempts += 1
    cycle.steps[cycle.step]["error"] = _said(error)
    log.error("step_failed", cycle=cycle.id, step=cycle.step, attempt=cycle.attempts, detail=_said(error))
    if cycle.attempts < world.settings.loop_attempts:
        world.journal.save(cycle)
        return
    if cycle.step in ("canary", "promote"):
        try:
            await stop(world, cycle, f"the loop gives up: {error}")
        except RunError as other:
            log.error("canary_not_stopped", cycle=cycle.id, experiment=cycle.experiment, detail=str(other))
    _end(world, cycle, "failed", f"the step {cycle.step} failed {cycle.attempts} times: {_said(error)}")


def _end(world: World, cycle: Cycle, outcome: str, reason: str) -> None:
    cycle.outcome, cycle.reason, cycle.ended_at = outcome, reason, iso(world.clock())
    world.journal.save(cycle)
    log.info("cycle_ended", cycle=cycle.id, kind=cycle.kind, outcome=outcome, reason=reason)
