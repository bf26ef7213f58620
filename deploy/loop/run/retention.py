"""Deletes what no cycle needs any more; never what is in service, or what an experiment or the hold-out names.

Only what the loop itself made is deleted: folders of its cycles, and versions that it published.
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
        needed = await in_use(world)
    except RunError as error:
        log.warning("nothing_deleted", detail=str(error))
        return []
    gone: list[str] = []
    try:
        for cycle in to_forget(cycles, needed, world.settings.loop_cycles_kept):
            gone += _delete(world, cycle)
    except OSError as error:  # it is tried again after the next cycle
        log.warning("not_deleted", detail=str(error))
    holding = [one for one in cycles if world.journal.folder(one).exists()]
    for cycle in cycles[: -world.settings.loop_journal_kept]:
        if cycle not in holding:
            world.journal.remove(cycle)
    if gone:
        log.info("deleted", paths=gone)
    return gone


async def in_use(world: World) -> set[str]:
    """Returns the versions that must stay: in service anywhere, to roll back to, in experiments, in the hold-out."""
    models, experiments = await world.service.models(), await world.service.experiments()
    served = [models["active"], models["previous"], models["chosen"], latest_of(world.artifacts)]
    served += [one["active"] for one in models["replicas"] or ()]
    named = [_arms(one) for one in experiments["experiments"] if one["state"] == "running"]
    held = [(experiments["holdout"] or {}).get("model")]
    return {str(one) for one in (*served, *(arm for arms in named for arm in arms), *held) if one}


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


def _delete(world: World, cycle: Cycle) -> list[str]:
    published = cycle.brought("publish", "path")
    paths = [world.journal.folder(cycle), *([Path(published)] if published else [])]
    gone = []
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
            gone.append(str(path))
    return gone
