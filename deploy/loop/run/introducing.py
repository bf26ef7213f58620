"""The steps that show the candidate to users: published, tried on a part of them, given to everybody."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from deploy.loop.run.journal import Cycle
from deploy.loop.run.service import ServiceAwayError, ServiceRefusedError
from deploy.loop.run.world import EndedError, World
from service.artifact.manifest import LATEST, MANIFEST
from service.common import logs
from service.common.atomic_files import naming, write_aside

log = logs.get(__name__)

OLD, NEW = "champion", "candidate"
# Answers that speak of the model or the canary; others, such as one that refuses the token, may be mended.
_OF_THE_MODEL = (httpx.codes.CONFLICT, httpx.codes.UNPROCESSABLE_ENTITY)


async def publish(world: World, cycle: Cycle) -> dict[str, Any]:
    """Copies the candidate to where the service looks for versions, whole or not at all."""
    source = Path(cycle.brought("export", "path"))
    target = world.artifacts / source.name
    if not (target / MANIFEST).exists():
        aside = world.artifacts / f".staging-{cycle.experiment}"  # an attempt that was killed left the same
        with naming(world.artifacts):
            shutil.rmtree(aside, ignore_errors=True)
            shutil.copytree(source, aside)
            aside.rename(target)
    return {"path": str(target)}


async def canary(world: World, cycle: Cycle) -> dict[str, Any]:
    """Tries the candidate on a part of the users, and waits for what comes of it.

    Raises:
        EndedError: It goes back: a guardrail broke, the time is over, somebody stopped it, or changed the model.
    """
    await _require_champion(world, cycle)
    if not world.settings.loop_canary:
        return {"tried": False}
    name = cycle.experiment
    if await world.service.experiment(name) is None:
        if cycle.brought("canary", "watched_from"):
            raise EndedError("failed", f"the service does not know the experiment {name} any more")
        await _start(world, cycle)
        log.info("canary_started", cycle=cycle.id, experiment=name)
    _note(world, cycle, watched_from=cycle.brought("canary", "watched_from") or world.clock())
    until = cycle.brought("canary", "watched_from") + world.settings.loop_canary_hours * 3600.0
    while True:
        if (decided := await _look(world, cycle)) is not None:
            return decided
        if world.clock() >= until:
            why = f"undecided after {world.settings.loop_canary_hours:g} hours"
            if cycle.brought("canary", "waits_for_clicks"):
                why += (
                    ": an arm has fewer clicked lists than GPT4REC_LOOP_CANARY_CLICKED; does `gpt4rec loop sink` run?"
                )
            await _back(world, cycle, "timed_out", why)
        await world.pause(world.settings.loop_poll_s)


async def promote(world: World, cycle: Cycle) -> dict[str, Any]:
    """Gives the candidate to everybody, and lets services that start later serve it.

    Raises:
        EndedError: The service refuses the model, or the canary went back at the last moment.
    """
    version = str(cycle.candidate)
    if (await world.service.models())["active"] != version:
        await _require_champion(world, cycle)
        try:
            if world.settings.loop_canary:
                await world.service.promote(cycle.experiment, NEW, f"cycle {cycle.id} of the loop")
            else:
                await world.service.activate(version, f"cycle {cycle.id} of the loop")
        except ServiceRefusedError as error:
            if error.status not in _OF_THE_MODEL:
                raise
            await _look(world, cycle)  # ends the cycle where the canary has gone back
            await stop(world, cycle, error.detail)
            raise EndedError("refused", f"the service does not take {version}: {error.detail}") from error
    elif world.settings.loop_canary:  # a crash came between the activation and the end of the experiment
        found = await world.service.experiment(cycle.experiment)
        if found is not None and found["state"] == "running":
            await world.service.promote(cycle.experiment, NEW, f"cycle {cycle.id} of the loop")
    write_aside(world.artifacts / LATEST, f"{version}\n".encode())
    return {"version": version}


def spec(world: World, cycle: Cycle) -> dict[str, Any]:
    """Returns the canary as the service wants it."""
    settings = world.settings
    return {
        "name": cycle.experiment,
        "layer": settings.loop_canary_layer,
        "share": settings.loop_canary_share,
        "arms": [
            {"name": OLD, "share": 0.5, "model": cycle.champion},
            {"name": NEW, "share": 0.5, "model": cycle.candidate},
        ],
        "steps": settings.steps,
        "step_lists": settings.loop_canary_lists,
        "guardrails": {},
        "reason": f"cycle {cycle.id} of the loop",
    }


async def stop(world: World, cycle: Cycle, reason: str) -> None:
    """Stops the canary if it runs; its users are answered as everybody is."""
    found = await world.service.experiment(cycle.experiment) if world.settings.loop_canary else None
    if found is not None and found["state"] == "running":
        await world.service.stop(cycle.experiment, reason)


async def _start(world: World, cycle: Cycle) -> None:
    try:
        await world.service.start(spec(world, cycle))
    except ServiceRefusedError as error:
        if error.status != httpx.codes.UNPROCESSABLE_ENTITY:
            raise
        raise EndedError("refused", f"the service does not take {cycle.candidate}: {error.detail}") from error


async def _look(world: World, cycle: Cycle) -> dict[str, Any] | None:
    """Looks at the canary once.

    Returns:
        What it found, if the candidate may be promoted; None while that is open.

    Raises:
        EndedError: It has gone back.
    """
    try:
        found = await world.service.experiment(cycle.experiment)
    except ServiceAwayError as error:  # it is asked again until the time is over
        log.warning("service_away", cycle=cycle.id, detail=str(error))
        return None
    if found is None:
        raise EndedError("failed", f"the service does not know the experiment {cycle.experiment} any more")
    if found["state"] == "returned":
        raise EndedError("returned", str(found["cause"]))
    if found["state"] == "stopped":
        raise EndedError("returned", f"somebody stopped {cycle.experiment}: {found['cause'] or 'without a reason'}")
    if found["state"] == "promoted":
        return {"tried": True, "arms": _arms(found)}
    return await _judged(world, cycle, found)


async def _judged(world: World, cycle: Cycle, found: Mapping[str, Any]) -> dict[str, Any] | None:
    """Judges a canary that runs: it may be promoted after enough lists of the last step."""
    fewest = min(arm["answers"] for arm in found["arms"])
    if found["step"] != cycle.brought("canary", "step"):
        _note(world, cycle, step=found["step"], step_from=fewest)
        log.info("canary", cycle=cycle.id, step=found["step"], steps=len(found["steps"]), portion=found["portion"])
    if not found["counted"] or found["step"] < len(found["steps"]):
        return None
    # A canary of one step begins with it; others enter it at some list, which is known to the next look only.
    begun = cycle.brought("canary", "step_from") if len(found["steps"]) > 1 else 0
    if fewest - begun < world.settings.loop_canary_lists:
        return None
    if found["shares_mismatch"]:
        await _back(world, cycle, "returned", "the users did not fall into the arms as the shares say")
    clicked = min(arm["clicked"] for arm in found["arms"])
    if clicked < world.settings.loop_canary_clicked:
        _note(world, cycle, waits_for_clicks=True)
        return None
    if not clicked:
        log.warning("canary_judged_without_clicks", cycle=cycle.id, experiment=cycle.experiment)
    return {"tried": True, "judged_by_clicks": clicked > 0, "arms": _arms(found)}


def _arms(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    names = ("name", "answers", "late", "failed", "below", "lists", "clicked", "click_through", "comparison")
    return [{name: arm[name] for name in names} for arm in found["arms"]]


async def _back(world: World, cycle: Cycle, outcome: str, reason: str) -> None:
    await stop(world, cycle, reason)
    raise EndedError(outcome, f"the canary of {cycle.candidate}: {reason}")


async def _require_champion(world: World, cycle: Cycle) -> None:
    """Checks that the model in service is still the one that the cycle began with.

    Raises:
        EndedError: It is not.
    """
    active = (await world.service.models())["active"]
    if active not in (cycle.champion, cycle.candidate):
        await stop(world, cycle, "the model in service was changed")
        raise EndedError("superseded", f"the service now serves {active} instead of {cycle.champion}")


def _note(world: World, cycle: Cycle, **facts: Any) -> None:
    """Keeps facts of a step under way in the journal."""
    step = cycle.steps.setdefault("canary", {})
    if any(step.get(name) != value for name, value in facts.items()):
        step |= facts
        world.journal.save(cycle)
