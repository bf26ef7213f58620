"""Deletes what no cycle needs any more; never what is in service, or what an experiment or the hold-out names.

Only what the loop itself made is deleted: folders of its cycles, and versions that it published. Copies of what users
did go first, because an erasure does not reach them: only those stay that the next cycle may go on from.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deploy.loop.run.journal import Cycle
from deploy.loop.run.world import World
from model.errors import RunError
from service.artifact.manifest import latest_of
from service.common import logs

log = logs.get(__name__)


async def keep_house(world: World) -> list[str]:
    """Deletes old cycles, and returns the paths that are gone; nothing while the service cannot be asked."""
    cycles = world.journal.cycles()
    try:
        served = await in_service(world)
        needed = served | await named(world)
    except RunError as error:
        log.warning("nothing_deleted", detail=str(error))
        return []
    gone: list[str] = []
    try:
        for cycle in to_forget(cycles, needed, world.settings.loop_cycles_kept):
            gone += _delete(_all_of(world, cycle))
        for cycle in without_data(cycles, served):
            gone += _delete(_copies(world, cycle))
    except OSError as error:  # it is tried again after the next cycle
        log.warning("not_deleted", detail=str(error))
    holding = [one for one in cycles if world.journal.folder(one).exists()]
    for cycle in cycles[: -world.settings.loop_journal_kept]:
        if cycle not in holding:
            world.journal.remove(cycle)
    if gone:
        log.info("deleted", paths=gone)
    return gone


async def in_service(world: World) -> set[str]:
    """Returns the versions that the next cycle may go on from: in service anywhere, chosen, or to roll back to."""
    models = await world.service.models()
    served = [models["active"], models["previous"], models["chosen"], latest_of(world.artifacts)]
    served += [one["active"] for one in models["replicas"] or ()]
    return {str(one) for one in served if one}


async def named(world: World) -> set[str]:
    """Returns the versions that experiments and the hold-out name."""
    experiments = await world.service.experiments()
    found = [_arms(one) for one in experiments["experiments"] if one["state"] == "running"]
    held = [(experiments["holdout"] or {}).get("model")]
    return {str(one) for one in (*(arm for arms in found for arm in arms), *held) if one}


def without_data(cycles: Sequence[Cycle], served: set[str]) -> list[Cycle]:
    """Returns the cycles whose copies of what users did may go. Pure.

    Args:
        cycles: All of them, the newest last.
        served: Versions that the next cycle may go on from.
    """
    bases = served | {one.champion for one in cycles if one.open}
    return [one for one in cycles if not one.open and one.candidate not in bases]


def to_forget(cycles: Sequence[Cycle], needed: set[str], kept: int) -> list[Cycle]:
    """Returns the cycles whose files may go. Pure.

    Args:
        cycles: All of them, the newest last.
        needed: Versions that must stay.
        kept: How many of the newest stay in any case.
    """
    return [one for one in cycles[:-kept] if not one.open and one.candidate not in needed]


def _arms(experiment: dict[str, Any]) -> list[str | None]:
    return [arm["model"] for arm in experiment["arms"]]


def _all_of(world: World, cycle: Cycle) -> list[Path]:
    published = cycle.brought("publish", "path")
    return [world.journal.folder(cycle), *([Path(published)] if published else [])]


def _copies(world: World, cycle: Cycle) -> list[Path]:
    folder = world.journal.folder(cycle)
    return [folder / "data", folder / "run" / "log"]


def _delete(paths: Sequence[Path]) -> list[str]:
    gone = []
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
            gone.append(str(path))
    return gone
