"""The journal: one JSON file a cycle, replaced as a whole before and after each step.

    WORK/journal/20260131-070000.json    format, id, kind, times, the step that is next, what each brought, the outcome
    WORK/cycles/20260131-070000/         data, run, artefact, reports and the messages of the commands of that cycle

A cycle without an outcome is open; at most the newest one is. Names sort by time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from model.errors import RunError
from service.common.atomic_files import write_durably
from service.metrics.loop_metrics import STEPS

FORMAT = 1
Kind = Literal["increment", "full"]


@dataclass
class Cycle:
    """What is known of a cycle. Times are ISO 8601, UTC.

    Attributes:
        id: Its name.
        kind: Whether the run of the champion is gone on from, or everything is trained anew.
        started_at: When it began.
        due_at: The time on the schedule that it stands for; None for one that was asked for.
        step: The step that is next, or that is being tried.
        attempts: How often that step has failed.
        steps: By step: `started_at`, `ended_at`, and what it brought.
        ended_at: When it ended; None while it is open.
        outcome: How it ended; None while it is open.
        reason: Why, in a sentence.
    """

    id: str
    kind: Kind
    started_at: str
    due_at: str | None = None
    step: str = STEPS[0]
    attempts: int = 0
    steps: dict[str, dict[str, Any]] = field(default_factory=dict)
    ended_at: str | None = None
    outcome: str | None = None
    reason: str | None = None

    @property
    def open(self) -> bool:
        """Whether it still has steps to do."""
        return self.outcome is None

    def brought(self, step: str, name: str) -> Any:
        """Returns what an earlier step brought; None if it brought nothing of that name."""
        return self.steps.get(step, {}).get(name)

    @property
    def champion(self) -> str | None:
        """The version that was in service when the cycle began."""
        version: str | None = self.brought("begin", "version")
        return version

    @property
    def candidate(self) -> str | None:
        """The version that it made."""
        version: str | None = self.brought("export", "version")
        return version

    @property
    def experiment(self) -> str:
        """Name of its canary."""
        return f"loop-{self.id}"


class Journal:
    """The journal in a work folder.

    Args:
        work: The work folder; made if it is not there.
    """

    def __init__(self, work: Path) -> None:
        self.work, self._folder = work, work / "journal"

    def folder(self, cycle: Cycle) -> Path:
        """Returns where the files of a cycle lie."""
        return self.work / "cycles" / cycle.id

    def file(self, cycle: Cycle) -> Path:
        """Returns the entry of a cycle."""
        return self._folder / f"{cycle.id}.json"

    def save(self, cycle: Cycle) -> None:
        """Writes the entry of a cycle; when it returns, the entry outlives a crash of the machine.

        Raises:
            OSError: It cannot be written; the entry is then as it was.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        content = {"format": FORMAT, **asdict(cycle), "champion": cycle.champion, "candidate": cycle.candidate}
        write_durably(self.file(cycle), json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n")

    def cycles(self) -> list[Cycle]:
        """Returns all cycles, the newest last.

        Raises:
            RunError: An entry is damaged or has another format.
        """
        return [_read(path) for path in sorted(self._folder.glob("[!.]*.json"))]

    def begun(self, kind: Kind, now: float, due_at: float | None, known: Iterable[Cycle]) -> Cycle:
        """Returns a new cycle, not yet written, whose name sorts behind all others."""
        last = max((cycle.id for cycle in known), default="")
        name = _name(now)
        if name <= last:  # two in one second, or a clock that went back
            name = _name(datetime.strptime(f"{last}+0000", f"{_NAME}%z").timestamp() + 1.0)
        return Cycle(name, kind, iso(now), None if due_at is None else iso(due_at))

    def remove(self, cycle: Cycle) -> None:
        """Removes the entry of a cycle."""
        self.file(cycle).unlink(missing_ok=True)


_NAME = "%Y%m%d-%H%M%S"


def _name(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).strftime(_NAME)


def iso(seconds: float) -> str:
    """Returns a time as the journal has it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def seconds_of(moment: str) -> float:
    """Returns a time of the journal as Unix seconds."""
    return datetime.fromisoformat(moment).timestamp()


_KINDS = {"increment", "full"}


def _read(path: Path) -> Cycle:
    try:
        content = json.loads(path.read_text("utf-8"))
        found = content["format"]
        if found != FORMAT:
            raise RunError(
                f"a cycle of the journal has format {found!r}, this version reads {FORMAT}",
                where=str(path),
                fix="go on with the version that wrote it, or move the work folder away and begin anew",
            )
        return _checked({name: content[name] for name in (one.name for one in fields(Cycle))})
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise RunError(
            f"a cycle of the journal is damaged: {error!r}",
            where=str(path),
            fix="restore it from a copy, or remove it together with its folder in cycles/",
        ) from error


def _checked(values: Mapping[str, Any]) -> Cycle:
    cycle = Cycle(**values)
    for moment in (cycle.started_at, cycle.due_at, cycle.ended_at):
        if moment is not None:
            seconds_of(moment)
    datetime.strptime(f"{cycle.id}+0000", f"{_NAME}%z")
    if cycle.kind not in _KINDS or cycle.step not in STEPS or not isinstance(cycle.steps, dict):
        raise ValueError("an unknown kind or step")
    return cycle
