"""The journal in words, for terminals. Pure, except that it looks at the journal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from deploy.loop.run.introducing import spec
from deploy.loop.run.journal import Cycle, Journal, iso, seconds_of
from deploy.loop.run.locks import holder
from deploy.loop.run.schedule import Schedule
from deploy.loop.run.world import World
from service.metrics.loop_metrics import STEPS

_SHOWN = 10


def status(journal: Journal, schedule: Schedule, now: float, *, most: int = _SHOWN) -> dict[str, Any]:
    """Returns what the loop does and did: `holder`, `open`, `due`, `next_at` and the newest `cycles`."""
    cycles = journal.cycles()
    due = schedule.due(cycles, now)
    return {
        "work": str(journal.work),
        "holder": holder(journal.work),
        "open": cycles[-1].id if cycles and cycles[-1].open else None,
        "due": None if due is None else due[0],
        "next_at": iso(schedule.next(now)),
        "cycles": [_told(one) for one in reversed(cycles[-most:])],
    }


def status_lines(found: dict[str, Any]) -> list[str]:
    """Returns the status as lines for a terminal, the newest cycle first."""
    lines = [f"{found['work']} is held by {found['holder']}." if found["holder"] else "No loop runs here."]
    if found["open"] is None:
        lines.append(f"Due now: {found['due'] or 'nothing'}. The next time is {found['next_at']}.")
    else:
        lines.append(f"The cycle {found['open']} is open: the loop goes on with it.")
    for cycle in found["cycles"]:
        what = cycle["outcome"] or f"in the step {cycle['step']}, {cycle['attempts']} attempts failed"
        lines.append(f"{cycle['id']}  {cycle['kind']:9}  {what}" + (f": {cycle['reason']}" if cycle["reason"] else ""))
        if cycle["outcome"] is None and (error := cycle["steps"].get(cycle["step"], {}).get("error")):
            lines += [f"    {line}" for line in str(error).splitlines()]
    return lines


def plan(world: World, cycle: Cycle, active: str, new_events: int) -> list[str]:
    """Returns what a cycle would do, in sentences."""
    settings, folder = world.settings, world.journal.folder(cycle)
    least = max(settings.loop_events_min, 1)
    how = "go on from its run" if cycle.kind == "increment" else "train everything anew"
    steps = spec(world, cycle)
    sentences = {
        "begin": f"take {active}, the model in service, as the champion",
        "sink": "write what the streams hold to the log" if settings.loop_sink else "leave the log to its sink",
        "data": f"add the new events of {settings.loop_log} to the data of the champion's run: {new_events:,} now"
        + (f"; with fewer than {least:,} the cycle ends here" if new_events < least else ""),
        "train": f"{how}, into {folder / 'run'}",
        "export": f"export the candidate to {folder / 'artifact'}",
        "gate": "refuse it if it is worse than the champion",
        "publish": f"copy it to {settings.loop_artifacts}",
        "canary": f"try it on {steps['share']:.0%} of the layer {steps['layer']}, of which "
        f"{', '.join(f'{step:.0%}' for step in steps['steps'])} are let in, for "
        f"{settings.loop_canary_hours:g} hours at most"
        if settings.loop_canary
        else "try it on nobody (GPT4REC_LOOP_CANARY is false)",
        "promote": "give it to everybody",
    }
    left = STEPS[STEPS.index(cycle.step) :]
    return [f"{name}: {sentences[name]}" for name in left]


def ended(cycle: Cycle) -> str:
    """Returns how a cycle ended, in a sentence."""
    took = seconds_of(cycle.ended_at or cycle.started_at) - seconds_of(cycle.started_at)
    return f"{cycle.id} ({cycle.kind}) {cycle.outcome} after {took:.0f} s: {cycle.reason}"


def _told(cycle: Cycle) -> dict[str, Any]:
    return {**asdict(cycle), "champion": cycle.champion, "candidate": cycle.candidate}


def newest(cycles: Sequence[Cycle]) -> Cycle | None:
    """Returns the open cycle; None if there is none."""
    return cycles[-1] if cycles and cycles[-1].open else None
